//! What a process takes: processor time and resident memory, as the kernel counts them.

use std::fs;

use anyhow::Context as _;

/// Processor time so far, in seconds, of all threads of a process.
///
/// # Errors
/// When there is no such process, or no `/proc`.
pub fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let folder = format!("/proc/{process}/task");
    let mut nanoseconds = 0;
    for task in fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let time = text.split_whitespace().next();
        nanoseconds += time.and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Resident memory in bytes.
///
/// # Errors
/// When there is no such process, or no `/proc`.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes.with_context(|| path)?.parse()?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_time_and_memory() {
        let me = std::process::id();
        let before = cpu_seconds(me).unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>() > 0);
        assert!(cpu_seconds(me).unwrap() > before);
        assert!(resident_bytes(me).unwrap() > 64 << 20);
        drop(block);
    }
}
