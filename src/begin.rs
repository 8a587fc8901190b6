//! How a process of this program begins.

/// What libraries read once, when they are loaded, so that this process has to begin again to set it.
///
/// - libgomp's idle threads spin by default, which slows every other thread of the stream (a step of the network took
///   137 ms instead of 13 ms on a busy machine).
/// - glibc gives every large block back to the kernel and takes it anew for the next layer, page by page: a fifth to a
///   third of a frame (`benches/results/official.md`). Kept blocks, in one arena and in huge pages, cost no more memory than the
///   largest frame has needed.
const SETTINGS: [(&str, &str, &[&str]); 2] = [
    ("GOMP_SPINCOUNT", "0", &["OMP_WAIT_POLICY"]),
    (
        "GLIBC_TUNABLES",
        "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:\
         glibc.malloc.top_pad=268435456:glibc.malloc.trim_threshold=4294967296",
        &["MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"],
    ),
];

/// Begins this process again with what it needs of the environment, unless it has that already. Returns once all is set, or when
/// that is not to be had, which is slower and not wrong.
pub fn with_settings() {
    // Who has set any of it knows why.
    let unset = |name: &&str| std::env::var_os(name).is_none();
    let wanted: Vec<_> = SETTINGS
        .into_iter()
        .filter(|(name, _, instead)| unset(name) && instead.iter().all(unset))
        .map(|(name, value, _)| (name, value))
        .collect();
    if !wanted.is_empty() {
        let error = again(&wanted);
        eprintln!("sonomask: could not start again with {wanted:?}: {error}");
    }
}

/// Replaces this process by itself with variables set. Returns only if that fails.
fn again(settings: &[(&str, &str)]) -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    match std::env::current_exe() {
        Ok(me) => {
            let mut args = std::env::args_os();
            let name = args.next().unwrap_or_default();
            std::process::Command::new(me).arg0(name).args(args).envs(settings.iter().copied()).exec()
        }
        Err(e) => e,
    }
}
