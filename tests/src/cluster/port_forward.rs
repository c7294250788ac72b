//! A port of a pod, on this machine.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};

use super::Kubectl;
use crate::caller::Caller;
use crate::processes::CommandLine;

/// `kubectl port-forward`, until it is dropped.
pub struct PortForward {
    child: Child,
    kubectl: Kubectl,
    address: SocketAddr,
}

impl PortForward {
    /// To a port of a pod; one that listens only on the pod's loopback is reached, too.
    #[track_caller]
    pub fn start(kubectl: &Kubectl, pod: &str, port: u16) -> Self {
        let args = ["port-forward", "--address=127.0.0.1", &format!("pod/{pod}"), &format!(":{port}")];
        let mut command = kubectl.command(&args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("kubectl starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        stdout.read_line(&mut line).expect("kubectl prints text");
        // It has a line to say about every connection, and ends when nobody reads it.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        // Forwarding from 127.0.0.1:41234 -> 7400
        let port = line.split([':', ' ']).find_map(|word| word.parse().ok());
        let port = port.unwrap_or_else(|| panic!("kubectl port-forward said {line:?}"));
        Self { child, kubectl: kubectl.clone(), address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) }
    }

    /// The address on this machine.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A caller of `queue` through it, as the namespace's default ServiceAccount.
    pub async fn caller(&self, queue: &str) -> Caller {
        Caller::connect(self.address, queue).await.with_token(&self.kubectl.token("default"))
    }

    /// One call of `ackwell` through it, as the same.
    pub fn command_line(&self, args: &[&str]) -> CommandLine {
        let token = self.kubectl.token("default");
        CommandLine::run_as(&self.address.to_string(), args, b"", &token)
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        // It ends by itself when its pod goes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
