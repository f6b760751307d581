//! Refuses to build a package without kernels; has macOS leave Python's names to the interpreter, as maturin does.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "macos") {
        println!("cargo::rustc-cdylib-link-arg=-undefined");
        println!("cargo::rustc-cdylib-link-arg=dynamic_lookup");
    }
    // A link, in a checkout: git for Windows makes a file of it, and the wheel would be built all the same.
    let kernels = Path::new("../../python/gliner_fast/kernels");
    assert!(
        !kernels.is_file(),
        "python/gliner_fast/kernels is a file where git should have made a link: clone with `git clone -c \
         core.symlinks=true`, on Windows in developer mode"
    );
}
