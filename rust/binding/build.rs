//! Refuses to build a package without kernels.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A link, in a checkout: git for Windows makes a file of it, and the wheel would be built all the same.
    let kernels = Path::new("../../python/gliner_fast/kernels");
    assert!(
        !kernels.is_file(),
        "python/gliner_fast/kernels is a file where git should have made a link: clone with `git clone -c \
         core.symlinks=true`, on Windows in developer mode"
    );
}
