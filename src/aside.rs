//! What is said beside the work, to whoever watches on standard error, if somebody does.

/// `eprintln!` for a program that goes on: a terminal that is gone, a pipe that nobody reads and a disk that is full
/// end nothing, while that one panics there, in the middle of whatever was to be told of.
macro_rules! aside {
    ($($said:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($said)*);
    }};
}
