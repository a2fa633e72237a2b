//! Which backends a build has, and that it has those that its platform is to have.
//!
//! The list is made of the backends' own names, so that one whose code is left out by a `cfg` is not in it. The table is
//! that of `docs/platforms.md`, and knows nothing of the code: a build in which the two differ stops. So a platform for
//! which the crate builds because everything was left out does not build.

/// The names of the backends that this build can start, in their order of preference. Whether the machine lets them start
/// is answered by [`Engine::backends`](crate::Engine::backends).
///
/// # Platform
/// Linux: `kernel-aio`, `posix-aio` (with glibc and musl), `thread-pool`. FreeBSD, NetBSD, macOS: `posix-aio`, `thread-pool`.
/// Android, iOS, OpenBSD, DragonFly BSD, Windows: `thread-pool`. Without a backend's feature it is not among them.
///
/// # Examples
/// ```
/// assert!(polyaio::backends::COMPILED_IN.contains(&"thread-pool"));
/// ```
pub const COMPILED_IN: &[&str] = &[
    #[cfg(all(target_os = "linux", feature = "kernel-aio"))]
    super::kernel_aio::NAME,
    #[cfg(all(
        any(
            all(target_os = "linux", any(target_env = "gnu", target_env = "musl")),
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "macos"
        ),
        feature = "posix-aio"
    ))]
    super::posix_aio::NAME,
    super::thread_pool::NAME,
];

/// What each platform is to have, where the features do not say otherwise.
const PLATFORMS: &[(bool, &[&str])] = &[
    (cfg!(all(target_os = "linux", target_env = "gnu")), &["kernel-aio", "posix-aio", "thread-pool"]),
    (cfg!(all(target_os = "linux", target_env = "musl")), &["kernel-aio", "posix-aio", "thread-pool"]),
    (cfg!(target_os = "freebsd"), &["posix-aio", "thread-pool"]),
    (cfg!(target_os = "netbsd"), &["posix-aio", "thread-pool"]),
    (cfg!(target_os = "macos"), &["posix-aio", "thread-pool"]),
    (cfg!(windows), &["thread-pool"]),
];

const _: () = {
    let mut platform = 0;
    while platform < PLATFORMS.len() {
        let (here, wanted) = PLATFORMS[platform];
        assert!(!here || has_exactly(wanted), "this build has not the backends that docs/platforms.md promises here");
        platform += 1;
    }
};

const fn has_exactly(wanted: &[&str]) -> bool {
    let (mut from, mut at) = (0, 0);
    while from < wanted.len() {
        let name = wanted[from];
        from += 1;
        let left_out = is(name, "kernel-aio") && cfg!(not(feature = "kernel-aio"))
            || is(name, "posix-aio") && cfg!(not(feature = "posix-aio"));
        if left_out {
            continue;
        }
        if at == COMPILED_IN.len() || !is(name, COMPILED_IN[at]) {
            return false;
        }
        at += 1;
    }
    at == COMPILED_IN.len()
}

/// `==`, which is not to be had in constants.
const fn is(name: &str, other: &str) -> bool {
    let (name, other) = (name.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < name.len() && at < other.len() && name[at] == other[at] {
        at += 1;
    }
    at == name.len() && at == other.len()
}

#[cfg(all(test, not(polyaio_loom)))]
mod tests {
    use super::*;

    /// What is registered beside the list is there to say why it does not start.
    #[test]
    fn what_is_compiled_in_is_registered_in_this_order() {
        let all = super::super::start(16, 2, 64, false).expect("a thread can be had");
        let listed: Vec<_> = all.iter().map(|one| one.name).filter(|name| COMPILED_IN.contains(name)).collect();
        assert_eq!(listed, COMPILED_IN);
        for other in all.iter().filter(|one| !COMPILED_IN.contains(&one.name)) {
            assert!(other.backend.is_err(), "{} has started and is not listed", other.name);
        }
    }
}
