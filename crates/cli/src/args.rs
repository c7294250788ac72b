//! The command line, and what several commands take.

use std::net::IpAddr;

use ackwell_client::{Client, DEFAULT_ADDRESS, Error};
use ackwell_proto::QueueName;
use anyhow::{anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    backup, bundle, cancel, completion, dev, explain, export, get, import, inspect, pause, peek, purge,
    receive, redrive, restart, send, stats, status, suspend, top, verify,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, or only a part was done, or verify found something; stderr says why
  2  the command line is wrong, or inspect, verify or export could not read the folder
  3  receive: no message came in time; status: there is no such queue";

/// Durable message queues: serve them on this machine, send, receive, look, redrive; and operate those of a cluster.
#[derive(Parser)]
#[command(name = "ackwell", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    /// How data is printed: for people, or for programs: one JSON value a line, or YAML documents.
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Dev(Box<dev::Dev>),
    Send(send::Send),
    Receive(receive::Receive),
    Peek(peek::Peek),
    Stats(stats::Stats),
    Redrive(redrive::Redrive),
    Get(get::Get),
    Explain(explain::Explain),
    Purge(purge::Purge),
    Cancel(cancel::Cancel),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Export(export::Export),
    Import(import::Import),
    Status(status::Status),
    Top(top::Top),
    Suspend(suspend::Suspend),
    Restart(restart::Restart),
    Backup(backup::Backup),
    DebugBundle(bundle::DebugBundle),
    Completion(completion::Completion),
    Man(completion::Man),
}

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
    Yaml,
}

/// The queue a command works on, and where it is.
#[derive(Args)]
pub(crate) struct Target {
    /// Name of the queue, like orders or shop/orders.
    #[arg(value_parser = queue_name)]
    pub(crate) queue: String,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Where a queue is called, and as whom.
#[derive(Args)]
pub(crate) struct Reach {
    /// The sidecar or broker to call.
    #[arg(long, value_name = "HOST:PORT", env = "ACKWELL_ADDRESS", default_value = DEFAULT_ADDRESS)]
    pub(crate) address: String,

    /// ServiceAccount token for the audience ackwell.dev, where a broker is called without a sidecar: what
    /// `kubectl create token NAME --audience=ackwell.dev` prints.
    #[arg(long, env = "ACKWELL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

impl Target {
    /// As [`Reach::connect`].
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        self.reach.connect().await
    }
}

impl Reach {
    /// Fails at once when nobody answers; calls on the connection then outlast a restart of the broker.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let client = Client::connect(&self.address).await.map_err(|error| match error {
            Error::Unreachable { .. } => {
                anyhow!("{error}; start one with `ackwell dev FILE`, or name another with --address")
            }
            other => other.into(),
        })?;
        match &self.token {
            None => Ok(client),
            Some(_) if !self.is_loopback() => bail!(
                "a token is only sent to this machine's loopback, since the connection is not encrypted: use kubectl \
                 port-forward"
            ),
            Some(token) => Ok(client.with_token(token)?),
        }
    }

    fn is_loopback(&self) -> bool {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let ip: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

/// `key=value`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("use key=value".to_owned()),
    }
}

pub(crate) fn queue_name(text: &str) -> Result<String, String> {
    // The namespace is only a stand-in: the broker knows its own.
    QueueName::parse(text, "default").map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Whoever adds an option writes down what it does.
    #[test]
    fn every_command_and_option_is_in_the_documentation() {
        let text = include_str!("../../../docs/cli.md");
        for command in Cli::command().get_subcommands() {
            let (_, section) = text.split_once(&format!("\n## `ackwell {}", command.get_name())).unwrap();
            let section = section.split("\n## ").next().unwrap();
            let of_all = ["address", "token"];
            let options = command.get_arguments().filter_map(clap::Arg::get_long);
            for option in options.filter(|long| !of_all.contains(long)) {
                assert!(section.contains(&format!("`--{option}")), "{} --{option}", command.get_name());
            }
        }
    }

    /// The documentation, examples and other tools use these forms.
    #[test]
    fn documented_forms_are_accepted() {
        for line in [
            "ackwell dev queue.yaml",
            "ackwell dev a.yaml b.yaml --data /tmp/x --listen 127.0.0.1:0",
            "ackwell send orders",
            "ackwell send shop/orders --file -",
            "ackwell send orders --file a --file b --whole --header k=v --header a=b=c --delay 10s --ttl 1h",
            "ackwell send orders --body hello --dedup-id 1 --content-type text/plain",
            "ackwell send orders --ordering-key c7 --fairness-key acme --priority 9",
            "ackwell receive orders --max 10 --wait 5s --address localhost:1",
            "ackwell receive orders --settle nack --reason broken --output json",
            "ackwell --output json peek orders --state dead --state ready --limit 5 --body",
            "ackwell stats orders --output json",
            "ackwell redrive orders --dry-run --max 5 --reason-contains timeout",
            "ackwell redrive orders --ordering-key c7 --fairness-key acme",
            "ackwell get orders 0199d3a8-0000-7000-8000-000000000001",
            "ackwell explain orders 0199d3a8-0000-7000-8000-000000000001 --output json",
            "ackwell purge orders --state dead --max 5 --dry-run",
            "ackwell purge orders --all",
            "ackwell cancel orders a b",
            "ackwell pause orders",
            "ackwell resume orders",
            "ackwell inspect .ackwell",
            "ackwell inspect .ackwell --segment 2a --output json",
            "ackwell inspect .ackwell --record 4711",
            "ackwell verify .ackwell --output json",
            "ackwell export .ackwell --queue orders --state dead --from log --to messages.jsonl",
            "ackwell import messages.jsonl --queue orders --dry-run --from-line 7",
            "ackwell status shop/orders -o yaml",
            "ackwell status --namespace shop --context production",
            "ackwell top orders logs --interval 2s --count 3",
            "ackwell suspend shop/orders --wait 2m",
            "ackwell suspend orders --end -n shop",
            "ackwell restart orders --wait 10m --context production",
            "ackwell debug-bundle orders -n shop --to folder",
            "ackwell completion bash",
            "ackwell man folder",
            "ackwell redrive orders --yes",
            "ackwell backup shop/orders --claim backups --path orders/1 --wait 12h --context production",
            "ackwell purge orders --all --yes",
            "ackwell redrive orders --namespace shop --rate 50 --max 5 --wait 2m",
            "ackwell purge shop/orders --context production --state dead --older-than 7d --yes --wait 0s",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for (line, expected) in [
            ("ackwell send Orders", ErrorKind::ValueValidation),
            ("ackwell send orders --header novalue", ErrorKind::ValueValidation),
            ("ackwell send orders --delay 10", ErrorKind::ValueValidation),
            ("ackwell receive orders --wait=-5s", ErrorKind::ValueValidation),
            ("ackwell send orders --priority 10", ErrorKind::ValueValidation),
            ("ackwell peek orders --state gone", ErrorKind::InvalidValue),
            ("ackwell dev queue.yaml --listen nowhere", ErrorKind::ValueValidation),
        ] {
            assert_eq!(parse(line).err(), Some(expected), "{line}");
        }
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for line in ["ackwell send orders --body a --file b", "ackwell send orders --body a --whole"] {
            assert_eq!(parse(line).err(), Some(ErrorKind::ArgumentConflict), "{line}");
        }
        assert_eq!(parse("ackwell send orders --dedup-id 1").err(), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("ackwell dev").err(), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("ackwell cancel orders").err(), Some(ErrorKind::MissingRequiredArgument));
    }
}
