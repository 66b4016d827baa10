//! The real programs, as they are now: built by the test that starts them, never stale ones.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// A program of this workspace, such as `logwarden-analyzer`, from the same profile as the caller.
///
/// The first call builds it, which may take minutes: call it before a clock is looked at.
///
/// # Panics
///
/// When it does not build.
pub fn binary(name: &str) -> PathBuf {
    PROGRAMS.join(name)
}

/// One of `examples/`.
///
/// # Panics
///
/// When it does not build.
pub fn example(name: &str) -> PathBuf {
    EXAMPLES.join("examples").join(name)
}

// An example needs the dependencies of tests, and with it all libraries have the features that they have in tests.
static PROGRAMS: LazyLock<PathBuf> =
    LazyLock::new(|| build(&["--bin", "logwarden-analyzer", "--bin", "logwarden-receiver", "--example", "embed"]));

static EXAMPLES: LazyLock<PathBuf> = LazyLock::new(|| build(&["--examples"]));

/// Builds what `targets` name, and answers where it is.
fn build(targets: &[&str]) -> PathBuf {
    // `TARGET/debug/deps/analyzer-1a2b` is a test that asks, `TARGET/debug/x` a program.
    let this = std::env::current_exe().unwrap_or_default();
    let profile = this.ancestors().skip(1).find(|path| !path.ends_with("deps")).unwrap_or(Path::new(""));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Of the whole workspace, because that enables the features that `cargo test --workspace` enables: all libraries are
    // there then, and only what was asked for is linked.
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--workspace"]).args(targets);
    build.arg("--target-dir").arg(profile.parent().unwrap_or(Path::new("")));
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().is_ok_and(|status| status.success()), "the programs do not build");
    profile.to_owned()
}
