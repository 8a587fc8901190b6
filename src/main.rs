//! The command line of sonomask.

use std::process::ExitCode;

fn main() -> ExitCode {
    sonomask::begin::with_settings();
    // Before anything asks libtorch whether CUDA is there. Absent on a CPU machine; `doctor` and `device = auto` say so.
    sonomask::segment::load_cuda().ok();
    sonomask::cli::main()
}
