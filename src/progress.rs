//! What happens, told to whoever shows it. The library never prints.

/// Someone who is told about the work as it goes.
pub trait Progress: Send + Sync {
    /// A piece of work begins; `total` is its size in bytes where it is known.
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Task>;

    /// Something that the user should know although the work goes on.
    fn warn(&self, message: &str);
}

/// A piece of work that is going on; it has ended when it is dropped.
pub trait Task: Send + Sync {
    /// That many more bytes are done.
    fn advance(&self, bytes: u64);

    /// The work is done without doing it: what it would have made is there already.
    fn skip(&self);
}

/// Nobody: for callers who do not want to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) -> Box<dyn Task> {
        Box::new(Silent)
    }

    fn warn(&self, _message: &str) {}
}

impl Task for Silent {
    fn advance(&self, _bytes: u64) {}

    fn skip(&self) {}
}
