//! The command line of sonomask.

use std::process::ExitCode;

/// libgomp's idle threads spin by default, which slows every other thread of the stream (a step of the network took
/// 137 ms instead of 13 ms on a busy machine). It reads this once, when it is loaded.
const SPIN: &str = "GOMP_SPINCOUNT";

fn main() -> ExitCode {
    if std::env::var_os(SPIN).is_none() && std::env::var_os("OMP_WAIT_POLICY").is_none() {
        let error = again();
        // Slower, not wrong.
        eprintln!("sonomask: could not start again with {SPIN}=0: {error}");
    }
    // Before anything asks libtorch whether CUDA is there. Absent on a CPU machine; `doctor` and `device = auto` say so.
    sonomask::segment::load_cuda().ok();
    sonomask::cli::main()
}

/// Replaces this process by itself with the variable set. Returns only if that fails.
fn again() -> std::io::Error {
    use std::os::unix::process::CommandExt as _;
    match std::env::current_exe() {
        Ok(me) => {
            let mut args = std::env::args_os();
            let name = args.next().unwrap_or_default();
            std::process::Command::new(me).arg0(name).args(args).env(SPIN, "0").exec()
        }
        Err(e) => e,
    }
}
