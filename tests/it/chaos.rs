//! Brokers, sidecars and applications that are killed, stopped, terminated and cut off at random times, and what the
//! applications saw of it.
//!
//! `ACKWELL_CHAOS_SECONDS` makes it longer, `ACKWELL_CHAOS_SEED` repeats its dice; what hits what when is up to the machine.

mod verdict;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackwell_proto::v1::QueueSettings;
use ackwell_tests::caller::{Caller, ack, delivered};
use ackwell_tests::dice::Dice;
use ackwell_tests::ledger::Ledger;
use ackwell_tests::processes::{Application, Broker, Process, QUEUE, Sidecar, ledger, settings};
use ackwell_tests::proxy::Proxy;
use ackwell_tests::wait::{now, pause_for};
use verdict::{Counts, Verdict};

const SECONDS: u64 = 20;
const BROKERS: usize = 2;
const PODS: usize = 3;
const PROGRAM: &str = env!("CARGO_BIN_EXE_chaos-application");
const SIGTERM: i32 = 15;
/// A machine that is busy drains a minute's backlog within this.
const LIMIT: Duration = Duration::from_mins(3);

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Anything.
    Stormy,
    /// Processes are told to stop, as Kubernetes does, and others take their places.
    Peaceful,
}

/// An application and its sidecar.
struct Pod {
    sidecar: Sidecar,
    /// Between them.
    network: Proxy,
    application: Option<Application>,
}

struct World {
    weather: Weather,
    seed: u64,
    folder: tempfile::TempDir,
    applications: AtomicU64,
    faults: AtomicU64,
}

/// Promise: whatever is killed, stopped or cut off: nothing confirmed is lost or stored twice, nothing acked comes again, every
/// failure is counted, and no receipt is good beside a newer one.
#[test]
fn nothing_is_lost_doubled_or_miscounted_in_a_storm() {
    run(Weather::Stormy);
}

/// Promise: no message is blamed for processes that were told to stop.
#[test]
fn rolling_restarts_blame_no_message() {
    run(Weather::Peaceful);
}

#[expect(clippy::disallowed_methods, reason = "test runners pass on no arguments")]
fn run(weather: Weather) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    let seconds = number("ACKWELL_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = number("ACKWELL_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()) * 7919);
    println!("{weather:?}: ACKWELL_CHAOS_SECONDS={seconds} ACKWELL_CHAOS_SEED={seed}");
    let folder = tempfile::tempdir().expect("a machine has a temporary folder");
    let world = World { weather, seed, folder, applications: AtomicU64::new(0), faults: AtomicU64::new(0) };
    // Deliveries of an application that is stopped go to others before the storm is over; those of one that is only slow to stop,
    // on a busy machine, do not.
    let ack_timeout_seconds = if weather == Weather::Stormy { 5 } else { 60 };
    let settings = QueueSettings { ack_timeout_seconds, max_attempts: 1000, ..settings() };
    let mut brokers: Vec<_> = (0..BROKERS).map(|_| Broker::prepare(settings)).collect();
    let networks: Vec<_> = brokers.iter().map(|broker| Proxy::to(broker.address())).collect();
    let addresses: Vec<_> = networks.iter().map(Proxy::address).collect();
    for broker in &mut brokers {
        broker.is_among(&addresses);
        broker.restart();
    }
    let mut pods: Vec<_> = (0..PODS).map(|_| world.pod(addresses[0])).collect();
    world.storm(Duration::from_secs(seconds), &mut brokers, &mut pods, &networks);
    pods.into_iter().for_each(|pod| end_application(pod.application.expect("it runs")));
    let left = drain(&brokers);
    let counts = world.judge(&left);
    println!(
        "{weather:?}: {} faults; {counts}; {} left over",
        world.faults.load(Ordering::Relaxed),
        left.len()
    );
}

impl World {
    fn pod(&self, broker: SocketAddr) -> Pod {
        let sidecar = Sidecar::start_to(broker, &[]);
        let network = Proxy::to(sidecar.address());
        let application = Some(self.application(network.address()));
        Pod { sidecar, network, application }
    }

    fn application(&self, address: SocketAddr) -> Application {
        let index = self.applications.fetch_add(1, Ordering::Relaxed);
        Application::start(Path::new(PROGRAM), address, self.folder.path(), index, self.seed)
    }

    fn storm(&self, time: Duration, brokers: &mut [Broker], pods: &mut [Pod], networks: &[Proxy]) {
        let until = now() + time;
        // Each kind has its own dice and its own time.
        let repeat = |kind: u64, fault: &mut dyn FnMut(&mut Dice)| {
            let mut dice = Dice::new(self.seed ^ kind);
            while now() < until {
                pause_for(dice.millis(100, 1500));
                fault(&mut dice);
                self.faults.fetch_add(1, Ordering::Relaxed);
            }
        };
        let cuts: Vec<Proxy> = networks.iter().chain(pods.iter().map(|pod| &pod.network)).cloned().collect();
        std::thread::scope(|scope| {
            scope.spawn(|| repeat(1, &mut |dice| hit_broker(self.weather, dice, brokers)));
            scope.spawn(|| repeat(2, &mut |dice| self.hit_pod(dice, pods)));
            if self.weather == Weather::Stormy {
                scope.spawn(|| repeat(3, &mut |dice| cuts[any(dice, cuts.len())].cut()));
            }
        });
    }

    fn hit_pod(&self, dice: &mut Dice, pods: &mut [Pod]) {
        let which = any(dice, pods.len());
        let Pod { sidecar, network, application } = &mut pods[which];
        let running = application.as_ref().expect("it runs").process();
        let kind = if self.weather == Weather::Peaceful { 0 } else { dice.below(6) };
        match kind {
            // As Kubernetes ends a pod: the application first.
            0 => {
                end_application(application.take().expect("it runs"));
                sidecar.process().terminate();
                sidecar.restart_once_ended();
            }
            1 => application.take().expect("it runs").into_process().kill(),
            2 => pause(dice, &[running]),
            3 => pause(dice, &[sidecar.process()]),
            4 => sidecar.restart(),
            _ => pause(dice, &[running, sidecar.process()]),
        }
        if application.is_none() {
            *application = Some(self.application(network.address()));
        }
    }

    #[track_caller]
    fn judge(&self, left: &HashSet<String>) -> Counts {
        let count = self.applications.load(Ordering::Relaxed);
        let ledgers = (0..count).map(|index| ledger(self.folder.path(), index)).filter(|path| path.exists());
        let ledgers = ledgers.map(|path| Ledger::read(&path).expect("a ledger can be read"));
        let mut verdict = Verdict::of(ledgers.collect());
        let counts = verdict.judge(left, self.weather == Weather::Peaceful);
        assert!(verdict.broken.is_empty(), "{counts}\n{}", verdict.broken.join("\n"));
        assert!(counts.acked > 100, "nothing was going on: {counts}");
        counts
    }
}

fn hit_broker(weather: Weather, dice: &mut Dice, brokers: &mut [Broker]) {
    let which = any(dice, brokers.len());
    let broker = &mut brokers[which];
    let kind = if weather == Weather::Peaceful { 0 } else { dice.below(3) };
    match kind {
        0 => end(broker.take()),
        1 => pause(dice, &[broker.process()]),
        _ => broker.kill(),
    }
    if kind != 1 {
        broker.restart();
    }
}

fn any(dice: &mut Dice, count: usize) -> usize {
    usize::try_from(dice.below(count as u64)).expect("below count")
}

/// Most are short; some are longer than what a stream may be resumed after.
fn pause(dice: &mut Dice, processes: &[&Process]) {
    processes.iter().for_each(|process| process.pause());
    let is_long = dice.one_in(5);
    pause_for(if is_long { dice.millis(4000, 8000) } else { dice.millis(50, 1500) });
    processes.iter().for_each(|process| process.resume());
}

/// As Kubernetes does.
#[track_caller]
fn end(process: Process) {
    process.terminate();
    assert!(process.wait().success());
}

/// The same; one that has just been started may not listen yet, and holds nothing then.
#[track_caller]
fn end_application(application: Application) {
    let process = application.into_process();
    process.terminate();
    let status = process.wait();
    assert!(status.success() || status.signal() == Some(SIGTERM), "{status}");
}

/// Takes what is left, straight from the brokers: the ids.
fn drain(brokers: &[Broker]) -> HashSet<String> {
    let runtime = tokio::runtime::Runtime::new().expect("a machine has threads");
    runtime.block_on(async {
        let mut left = HashSet::new();
        for broker in brokers {
            let (caller, until) = (Caller::connect(broker.address(), QUEUE).await, now() + LIMIT);
            while caller.stats().await.bytes > 0 {
                assert!(now() < until, "not drained: {:?}", caller.stats().await);
                let deliveries = caller.receive(100, Duration::from_millis(500)).await.expect("it answers");
                left.extend(deliveries.iter().map(|delivery| delivered(delivery).id.clone()));
                if !deliveries.is_empty() {
                    caller.settle(deliveries.iter().map(ack).collect()).await.expect("it answers");
                }
            }
        }
        left
    })
}
