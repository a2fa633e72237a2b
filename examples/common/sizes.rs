//! Sizes and depths on the command line, and what does not fit into memory.

/// A number of bytes, such as `4096`, `64KiB`, `64k` or `1 MiB`. What is too large for 64 bits is 2^64 - 1.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a size: write for example 64KiB or 4096"))?;
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("unknown unit `{unit}`: write K, KiB, M, MiB, G or GiB")),
    };
    Ok(number.saturating_mul(1 << shift))
}

/// More than any queue that pays off, less than what spends every descriptor of `fs.aio-max-nr` (65 536 by default).
const DEEPEST: usize = 16 * 1024;

/// A number of blocks in flight.
pub(crate) fn parse_depth(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("with 0 blocks in flight nothing moves: it must be at least 1".to_string()),
        Ok(depth) if depth <= DEEPEST => Ok(depth),
        Ok(_) => Err(format!("at most {DEEPEST} blocks in flight")),
        Err(_) => Err(format!("`{text}` is not a number of blocks: write for example 32")),
    }
}

/// Refuses blocks that do not fit into memory together: they cannot be given back while they are in flight.
pub(crate) fn check_memory(block_size: usize, depth: usize) -> Result<(), String> {
    let limit = memory_limit();
    match block_size.checked_mul(depth) {
        Some(memory) if memory as u64 <= limit => Ok(()),
        _ => Err(format!(
            "--block-size {block_size} times --depth {depth} needs more memory than there is to spare ({} MiB): lower one \
             of them",
            limit >> 20,
        )),
    }
}

/// Half of what is available, in bytes.
pub(crate) fn memory_limit() -> u64 {
    const WHERE_UNKNOWN: u64 = 4 << 30;
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return WHERE_UNKNOWN;
    };
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or(WHERE_UNKNOWN, |kib| kib.saturating_mul(1024) / 2)
}
