//! Compiles the XDP programs with clang and generates their skeletons.

use std::{env, path::PathBuf, process::Command};

use libbpf_cargo::SkeletonBuilder;

const SETUP: &str = "`cargo xtask setup` installs what is missing (Debian: clang, linux-libc-dev)";

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let Some(triplet) = host_triplet(&clang) else {
        println!("cargo::error=`{clang}` does not run, and the XDP programs need it; {SETUP}");
        return;
    };
    for name in ["server", "client"] {
        let built = SkeletonBuilder::new()
            .source(format!("src/bpf/{name}.bpf.c"))
            .clang(&clang)
            .clang_args(["-Wall".to_owned(), "-Werror".to_owned(), include_arg(&triplet)])
            .build_and_generate(out.join(format!("{name}.skel.rs")));
        if let Err(error) = built {
            for line in format!("{error:#}").lines() {
                println!("cargo::error={line}");
            }
            println!("cargo::error=the XDP program {name} was not built; {SETUP}");
            return;
        }
    }
}

/// The triplet under which Debian keeps `asm/types.h`, e.g. `x86_64-linux-gnu`; None without clang.
fn host_triplet(clang: &str) -> Option<String> {
    let output = Command::new(clang).arg("-dumpmachine").output().ok()?;
    let triplet = String::from_utf8(output.stdout).ok()?;
    // clang puts a vendor into it (`x86_64-pc-linux-gnu`), the folder has none.
    output.status.success().then(|| triplet.trim().replace("-pc-", "-").replace("-unknown-", "-"))
}

fn include_arg(triplet: &str) -> String {
    format!("-I/usr/include/{triplet}")
}
