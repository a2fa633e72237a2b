#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use io_uring::{IoUring, opcode, types::Fd};

use crate::buffer::Buffer;
use crate::jobs::BLOCK;
use crate::results::Measured;
use crate::worker::{Setting, Shared};

/// A ring, and as many places as the depth.
pub(super) fn run(setting: &Setting) -> Result<Measured, String> {
    let file = setting.open()?;
    let places = || (0..setting.depth).map(|_| (Buffer::new(), Instant::now())).collect();
    // Longer than the ring: what is in flight when that goes would write into it.
    let mut places: Vec<(Buffer, Instant)> = places();
    let mut ring = IoUring::new(setting.depth as u32).map_err(|error| format!("io_uring_setup: {error}"))?;
    setting
        .measure(|shared| all(&mut ring, Fd(file.as_raw_fd()), &mut places, shared).map_err(|error| error.to_string()))
}

fn all(ring: &mut IoUring, fd: Fd, places: &mut [(Buffer, Instant)], shared: &Shared) -> io::Result<()> {
    let (mut idle, mut now): (Vec<usize>, _) = ((0..places.len()).collect(), Instant::now());
    let mut failure = None;
    loop {
        while let Some(&at) = idle.last()
            && failure.is_none()
            && let Some(request) = shared.next(now)
        {
            idle.pop();
            let (buffer, start) = &mut places[at];
            *start = now;
            let memory = buffer.as_mut_ptr();
            let entry = match request.write {
                true => opcode::Write::new(fd, memory, BLOCK as u32).offset(request.offset).build(),
                false => opcode::Read::new(fd, memory, BLOCK as u32).offset(request.offset).build(),
            };
            // SAFETY: the buffer stays where it is until its completion, which is waited for.
            let pushed = unsafe { ring.submission().push(&entry.user_data(at as u64)) };
            pushed.map_err(io::Error::other)?;
        }
        if idle.len() == places.len() {
            return failure.map_or(Ok(()), Err);
        }
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => now = Instant::now(),
        }
        for completion in ring.completion() {
            let at = completion.user_data() as usize;
            idle.push(at);
            match completion.result() {
                n if n == BLOCK as i32 => shared.done(places[at].1, now),
                n @ 0.. => failure = Some(io::Error::other(format!("short transfer of {n} bytes"))),
                errno => failure = Some(io::Error::from_raw_os_error(-errno)),
            }
        }
    }
}
