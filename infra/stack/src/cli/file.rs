//! Files as commands take them: `-` is standard input, and what is packed with gzip is unpacked.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;

/// How much of a packed file is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// The first two bytes of gzip (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file, opened and unpacked.
pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    counter: Counter,
    /// Its length on disk, where it has one.
    pub(super) bytes: Option<u64>,
}

/// How many bytes of a file, as it lies on disk, have been read.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// The number of bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counted<R>(R, Counter);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.0.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Source {
    /// Opens a file, or standard input for `-`; gzip is known by its first two bytes.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if path == Path::new("-") {
            return Self::unpack(std::io::stdin(), None).context("cannot read standard input");
        }
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let metadata = file.metadata().with_context(|| format!("cannot open {shown}"))?;
        anyhow::ensure!(!metadata.is_dir(), "{shown} is a directory, not a file");
        let bytes = metadata.is_file().then_some(metadata.len());
        Self::unpack(file, bytes).with_context(|| format!("cannot read {shown}"))
    }

    /// A file that is all here.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Self {
        let length = bytes.len() as u64;
        Self::unpack(Cursor::new(bytes), Some(length)).expect("memory can be read")
    }

    fn unpack(raw: impl Read + Send + 'static, bytes: Option<u64>) -> std::io::Result<Self> {
        let counter = Counter::default();
        let mut raw = Counted(raw, counter.clone());
        let mut first = Vec::with_capacity(GZIP_MAGIC.len());
        (&mut raw).take(GZIP_MAGIC.len() as u64).read_to_end(&mut first)?;
        let packed = first == GZIP_MAGIC;
        let whole = Cursor::new(first).chain(raw);
        let reader: Box<dyn Read + Send> = if packed {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { reader, counter, bytes })
    }

    /// Tells how far the reading has come, also while another thread reads.
    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.reader.read(buffer)
    }
}
