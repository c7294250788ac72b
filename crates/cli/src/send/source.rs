//! Bodies of messages from stdin, files or the command line.

use std::collections::VecDeque;
use std::fmt;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};

/// The most that any queue takes; what is longer is refused here, before it fills the memory.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Large enough that reading is not what limits a send.
const BUFFER_BYTES: usize = 256 << 10;

/// Where bodies come from.
pub(super) enum Input {
    Stdin,
    File(PathBuf),
    Text(String),
}

/// What one body is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Up to a line feed.
    Line,
    /// Up to the end.
    Whole,
}

/// Where a body stands, for messages to people: `orders.jsonl:7`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    input: Arc<str>,
    line: Option<u64>,
}

/// One body.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) body: Bytes,
}

/// The bodies of some inputs, one after the other.
pub(super) struct Source {
    inputs: VecDeque<Input>,
    unit: Unit,
    reader: Option<Reader>,
}

struct Reader {
    name: Arc<str>,
    input: Box<dyn AsyncBufRead + Unpin>,
    unit: Unit,
    /// Lines that were given out.
    lines: u64,
    /// What is read of the next body.
    partial: Vec<u8>,
    ended: bool,
}

impl Source {
    pub(super) fn new(inputs: Vec<Input>, unit: Unit) -> Self {
        Self { inputs: inputs.into(), unit, reader: None }
    }

    /// The next body; `None` at the end. Cancelling it loses nothing: what was read stays here.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Item>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(item) = reader.next().await? {
                    return Ok(Some(item));
                }
                self.reader = None;
                self.inputs.pop_front();
            }
            let Some(input) = self.inputs.front() else { return Ok(None) };
            self.reader = Some(Reader::open(input, self.unit).await?);
        }
    }
}

impl Reader {
    async fn open(input: &Input, unit: Unit) -> anyhow::Result<Self> {
        let (name, input): (_, Box<dyn AsyncBufRead + Unpin>) = match input {
            Input::Stdin => {
                ("stdin".into(), Box::new(BufReader::with_capacity(BUFFER_BYTES, tokio::io::stdin())))
            }
            Input::Text(text) => ("--body".into(), Box::new(Cursor::new(text.clone()))),
            Input::File(path) => {
                let file =
                    File::open(path).await.with_context(|| format!("cannot read {}", path.display()))?;
                (path.display().to_string(), Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
            }
        };
        Ok(Self { name: name.into(), input, unit, lines: 0, partial: Vec::new(), ended: false })
    }

    async fn next(&mut self) -> anyhow::Result<Option<Item>> {
        while !self.ended {
            let chunk = self.input.fill_buf().await.with_context(|| format!("cannot read {}", self.name))?;
            let end = chunk.iter().position(|byte| self.unit == Unit::Line && *byte == b'\n');
            self.ended = chunk.is_empty();
            let body = &chunk[..end.unwrap_or(chunk.len())];
            self.partial.extend_from_slice(body);
            let read = body.len() + usize::from(end.is_some());
            self.input.consume(read);
            if self.partial.len() > MAX_BODY_BYTES {
                bail!("{}: longer than 16 MiB, the most that a queue takes", self.place());
            }
            if end.is_some() {
                return Ok(Some(self.item()));
            }
        }
        // A last line without a line feed is a line; after the last line feed there is none.
        let rest = self.lines == 0 && self.unit == Unit::Whole || !self.partial.is_empty();
        Ok(rest.then(|| self.item()))
    }

    fn item(&mut self) -> Item {
        let item = Item { place: self.place(), body: std::mem::take(&mut self.partial).into() };
        self.lines += 1;
        item
    }

    /// Of the body that is being read.
    fn place(&self) -> Place {
        let line = (self.unit == Unit::Line).then_some(self.lines + 1);
        Place { input: self.name.clone(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.input),
            None => f.write_str(&self.input),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(content: &[u8], unit: Unit) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input");
        std::fs::write(&path, content).unwrap();
        (folder, Source::new(vec![Input::File(path)], unit))
    }

    async fn bodies(content: &[u8], unit: Unit) -> Vec<Bytes> {
        let (_folder, mut source) = source(content, unit);
        let mut bodies = Vec::new();
        while let Some(item) = source.next().await.unwrap() {
            bodies.push(item.body);
        }
        bodies
    }

    /// As many messages as lines, with the bytes of the lines.
    #[tokio::test]
    async fn each_line_is_a_body() {
        assert_eq!(bodies(b"a\nb\r\n\n\xffc", Unit::Line).await, [&b"a"[..], b"b\r", b"", b"\xffc"]);
        assert_eq!(bodies(b"a\n", Unit::Line).await, [&b"a"[..]]);
        assert_eq!(bodies(b"", Unit::Line).await, [] as [&[u8]; 0]);
    }

    #[tokio::test]
    async fn whole_file_is_a_body_even_when_empty() {
        assert_eq!(bodies(b"a\nb\n", Unit::Whole).await, [&b"a\nb\n"[..]]);
        assert_eq!(bodies(b"", Unit::Whole).await, [&b""[..]]);
    }

    #[tokio::test]
    async fn line_longer_than_the_buffer_is_one_body() {
        let long = vec![b'x'; 3 * BUFFER_BYTES + 1];
        let content = [&long[..], b"\nend"].concat();
        assert_eq!(bodies(&content, Unit::Line).await, [&long[..], b"end"]);
    }

    /// The line number is what a person needs to fix the file.
    #[tokio::test]
    async fn line_that_no_queue_takes_is_refused_with_its_number() {
        let content = [b"a\n", &vec![b'x'; MAX_BODY_BYTES + 1][..]].concat();
        let (_folder, mut source) = source(&content, Unit::Line);
        assert_eq!(&source.next().await.unwrap().unwrap().body[..], b"a");
        let error = source.next().await.unwrap_err().to_string();
        assert!(error.ends_with("/input:2: longer than 16 MiB, the most that a queue takes"), "{error}");
    }

    #[tokio::test]
    async fn file_that_is_missing_is_named() {
        let mut source = Source::new(vec![Input::File("/nowhere/x".into())], Unit::Line);
        assert_eq!(source.next().await.unwrap_err().to_string(), "cannot read /nowhere/x");
    }
}
