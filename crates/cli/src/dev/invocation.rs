//! The next command to try, as it works in the caller's shell.

use std::net::SocketAddr;
use std::path::Path;

use ackwell_client::DEFAULT_ADDRESS;

/// This program as the caller can call it: as it was called, shortened when it lies below the current folder.
pub(super) fn program(argument: &Path, folder: &Path) -> String {
    let shortest =
        argument.strip_prefix(folder).ok().filter(|rest| rest.components().count() > 1).unwrap_or(argument);
    quoted(&shortest.to_string_lossy())
}

/// Sends one message to `queue` and receives it.
pub(super) fn try_it(program: &str, queue: &str, address: SocketAddr) -> String {
    let address = match address.to_string() {
        default if default == DEFAULT_ADDRESS => String::new(),
        other => format!(" --address {other}"),
    };
    format!("echo hello | {program} send {queue}{address} && {program} receive {queue}{address}")
}

/// For a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(argument: &str) -> String {
        program(Path::new(argument), Path::new("/home/me/ackwell"))
    }

    /// The line is there to be copied: it must run as printed.
    #[test]
    fn program_is_printed_as_the_shell_finds_it() {
        assert_eq!(called("ackwell"), "ackwell");
        assert_eq!(called("target/release/ackwell"), "target/release/ackwell");
        assert_eq!(called("/home/me/ackwell/target/release/ackwell"), "target/release/ackwell");
        // "ackwell" alone would be looked up in PATH.
        assert_eq!(called("/home/me/ackwell/ackwell"), "/home/me/ackwell/ackwell");
        assert_eq!(called("/opt/my tools/ackwell"), "'/opt/my tools/ackwell'");
    }

    #[test]
    fn address_is_named_only_when_it_is_not_the_default() {
        let line = |address: &str| try_it("ackwell", "orders", address.parse().unwrap());
        assert_eq!(line("127.0.0.1:7400"), "echo hello | ackwell send orders && ackwell receive orders");
        assert_eq!(
            line("127.0.0.1:7500"),
            "echo hello | ackwell send orders --address 127.0.0.1:7500 && \
             ackwell receive orders --address 127.0.0.1:7500"
        );
    }
}
