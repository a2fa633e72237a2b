//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::selection::Selection;
use crate::sizes::{check_memory, parse_bytes, parse_depth};
use crate::text::Failure;

/// Copies files asynchronously, with whatever backend suits them.
///
/// `-` is standard input or output. FIFOs, sockets, terminals and block devices work on either side.
#[derive(Parser)]
#[command(name = "aiocp", version, override_usage = "aiocp [OPTIONS] <SRC>... <DST>")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) selection: Selection,

    /// Bytes per request: a number, or one with K, KiB, M, MiB, G or GiB
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    pub(crate) block_size: usize,

    /// Blocks in flight
    #[arg(long, value_name = "N", default_value = "32", value_parser = parse_depth)]
    pub(crate) depth: usize,

    /// Bypass the page cache (O_DIRECT) where the file system can
    #[arg(long)]
    pub(crate) direct: bool,

    /// Wait until the destination is on stable storage
    #[arg(long)]
    pub(crate) sync: bool,

    /// Print one JSON object on standard error, and nothing else
    #[arg(long)]
    pub(crate) json: bool,

    /// Print nothing but errors
    #[arg(long)]
    pub(crate) quiet: bool,

    /// What to copy, and last where to: a directory when there are several sources
    #[arg(value_name = "PATH", required = true)]
    pub(crate) sources: Vec<PathBuf>,

    /// The last of them; one list on the command line, so that options may stand anywhere.
    #[arg(skip)]
    pub(crate) destination: PathBuf,
}

/// Reads the command line; what is wrong with it ends the program with exit code 2.
pub(crate) fn parse() -> Args {
    let mut args = Args::parse();
    match args.sources.pop() {
        Some(destination) if !args.sources.is_empty() => args.destination = destination,
        _ => Args::command()
            .error(ErrorKind::MissingRequiredArgument, "the destination is missing: name it last, after the sources")
            .exit(),
    }
    if let Err(failure) = check_together(&args) {
        Args::command().error(ErrorKind::ValueValidation, failure.line).exit();
    }
    args
}

/// What no single argument shows.
fn check_together(args: &Args) -> Result<(), Failure> {
    let several = args.sources.len() > 1;
    if several && args.destination.as_os_str() == "-" {
        return Err(Failure::new("several sources need a directory as destination, not `-`"));
    }
    if several && args.sources.iter().any(|source| source.as_os_str() == "-") {
        return Err(Failure::new("`-` has no name to go into a directory with: copy standard input by itself"));
    }
    check_memory(args.block_size, args.depth).map_err(Failure::new)
}

/// One request of the operating system moves at most this much (`MAX_RW_COUNT`, rounded down to a power of two).
const LARGEST_BLOCK: u64 = 1 << 30;

fn parse_size(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        0 => Err("a block of 0 bytes copies nothing: it must be at least 1 byte".to_string()),
        // At most 1 GiB, which fits a `usize` everywhere.
        bytes if bytes <= LARGEST_BLOCK => Ok(bytes as usize),
        _ => Err("a block is at most 1GiB".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("1 MiB"), Ok(1 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for wrong in ["", "0", "0K", "-1", "K", "1KB", "1.5M", "2G", "99999999999999999999", "18446744073709551615K"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn command_line_is_consistent() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["aiocp", "--depth=4", "a", "b", "-"]).map_err(|error| error.to_string());
        let args = args.expect("two sources and a destination");
        // The destination is taken from its end when all is parsed.
        assert_eq!(args.sources.len(), 3);
        assert_eq!(args.sources[2].as_os_str(), "-");
    }
}
