//! scratch
use ackwell_engine::command::*;
use ackwell_engine::message::{Payload, QueueId};
use ackwell_engine::store::Entropy;
use ackwell_engine::{Command, Engine, Reply, Settings, Store, Timestamp};
use bytes::Bytes;
use std::time::{Duration, Instant};
fn rss() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .find(|l| l.starts_with("VmRSS"))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}
struct W {
    e: Engine,
    q: QueueId,
    now: Timestamp,
    sent: u64,
    keys: u64,
    kind: char,
    inflight: u64,
}
impl W {
    fn apply(&mut self, c: Command) -> Reply {
        self.now = self.now.plus_ms(1);
        self.e.apply(self.now, vec![c]).unwrap().replies.remove(0)
    }
    fn msgs(&mut self, n: u32) -> Vec<NewMessage> {
        (0..n)
            .map(|_| {
                self.sent += 1;
                let k = format!("key-{}", if self.keys > 0 { self.sent % self.keys } else { 0 });
                let mut p = Payload { body: Bytes::from_static(&[b'x'; 100]), ..Payload::default() };
                if self.kind == 'o' {
                    p.ordering_key = k
                } else if self.kind == 'f' {
                    p.fairness_key = k
                }
                NewMessage { payload: p, ..NewMessage::default() }
            })
            .collect()
    }
    fn send(&mut self, n: u32) -> Duration {
        let messages = self.msgs(n);
        let c =
            Command::Send(Send { queue: self.q, messages, batch: Batch::Each, request_id: String::new() });
        let t = Instant::now();
        self.apply(c);
        t.elapsed()
    }
    fn receive(&mut self) -> (Vec<Delivery>, Duration) {
        let c = Command::Receive(Receive {
            queue: self.q,
            max_messages: 100,
            max_bytes: u64::MAX,
            oversized: Oversized::Comes,
            ack_timeout_ms: None,
            consumer: "".into(),
            request_id: String::new(),
            handover: Handover::AtOnce,
        });
        let t = Instant::now();
        match self.apply(c) {
            Reply::Received(d) => (d, t.elapsed()),
            o => panic!("{o:?}"),
        }
    }
    fn settle(&mut self, d: Vec<Delivery>, o: &Outcome) -> Duration {
        let settlements = d.into_iter().map(|d| (d.receipt, o.clone())).collect();
        let c = Command::Settle(Settle { queue: self.q, settlements });
        let t = Instant::now();
        self.apply(c);
        t.elapsed()
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let backlog: u64 = a[1].parse().unwrap();
    let kind = a[2].chars().next().unwrap();
    let keys: u64 = a[3].parse().unwrap();
    let cycles: u64 = a[4].parse().unwrap();
    let now = Timestamp(1_764_000_000_000);
    let mut e = Engine::open(Store::volatile(Entropy { receipt_key: [7; 16], salt: 1 }), now).unwrap();
    let Reply::Configured(q, _) = e
        .apply(
            now,
            vec![Command::Configure(Configure {
                name: "shop/orders".into(),
                generation: 1,
                settings: Settings { max_in_flight: u64::MAX, ..Settings::default() },
            })],
        )
        .unwrap()
        .replies
        .remove(0)
    else {
        panic!()
    };
    let mut w = W { e, q, now, sent: 0, keys, kind, inflight: 0 };
    let _ = w.inflight;
    let r0 = rss();
    let t = Instant::now();
    while w.sent < backlog {
        w.send(1000);
    }
    let fill = t.elapsed();
    println!(
        "fill {} : {:.2} us/msg, rss {} MiB (start {})",
        backlog,
        fill.as_nanos() as f64 / 1e3 / (backlog.max(1)) as f64,
        rss(),
        r0
    );
    for _ in 0..200 {
        w.send(100);
        let d = w.receive().0;
        w.settle(d, &Outcome::Ack);
    }
    let (mut s, mut r, mut k) = (vec![], vec![], vec![]);
    if std::env::var("WAIT").is_ok() {
        println!("ready");
        let mut l = String::new();
        std::io::stdin().read_line(&mut l).unwrap();
    }
    for _ in 0..cycles {
        s.push(w.send(100));
        let (d, t) = w.receive();
        r.push(t);
        assert_eq!(d.len(), 100);
        k.push(w.settle(d, &Outcome::Ack));
    }
    let u = |mut d: Vec<Duration>| {
        d.sort();
        d[d.len() / 2].as_nanos() as f64 / 1e5
    };
    let (s, r, k) = (u(s), u(r), u(k));
    println!(
        "send {:.3} receive {:.3} ack {:.3} total {:.3} us (medians), rss {}",
        s,
        r,
        k,
        s + r + k,
        rss()
    );
    let mut k = vec![];
    for _ in 0..cycles / 4 {
        w.send(100);
        let d = w.receive().0;
        k.push(w.settle(d, &Outcome::Nack { delay_ms: Some(0), reason: String::new() }));
        let d = w.receive().0;
        w.settle(d, &Outcome::Ack);
    }
    println!("nack {:.3}", u(k));
}
