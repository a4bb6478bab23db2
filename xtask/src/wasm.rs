//! A Worker out of one of the workspace's crates: Rust to Wasm, its bindings, the crate's `entry.js`, bundled, and both made
//! small. The tools are those that worker-build would run, in the same order; but the entry is ours, and what no
//! JavaScript calls is taken out of the Wasm.
use crate::setup::{cargo_tool, logs, node_bin, node_command, program};
use crate::ui::step;
use crate::{Doing, Result, root, said, target};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a Worker's Wasm weighs, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub raw: usize,
    pub gzipped: usize,
}

/// Of the same release as the `worker` crate.
const WORKER_BUILD: &str = "0.8.7";

/// Crates every Worker may be made of, and what pins the tools.
const SHARED_SOURCES: [&str; 9] = [
    "cache",
    "gateway-rules",
    "kv-schemas",
    "platform",
    "tokens",
    "Cargo.toml",
    "Cargo.lock",
    "package-lock.json",
    "xtask/src/wasm.rs",
];

/// Features of Wasm that rustc's target and wasm-bindgen use; not all there are, so that no newer encoding slips in.
const FEATURES: [&str; 7] = [
    "mutable-globals",
    "sign-ext",
    "nontrapping-float-to-int",
    "bulk-memory",
    "multivalue",
    "reference-types",
    "exception-handling",
];

/// The crates that are Workers.
pub const WORKERS: [&str; 2] = ["journal", "edge"];

/// Builds all Workers.
pub fn build_all() -> Result<Vec<(&'static str, Size)>> {
    WORKERS.into_iter().map(|package| Ok((package, build(package)?))).collect()
}

/// Compiles the crate to its folder `build`, unless what is there was made of the same files.
pub fn build(package: &str) -> Result<Size> {
    let _lock = lock()?;
    let out = root().join(package).join("build");
    let (wanted, stamp) = (fingerprint(package)?, out.join(".made-of"));
    if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        compile(package, &out)?;
        std::fs::write(&stamp, wanted).doing("cannot note what the Worker was made of")?;
    }
    let bytes = std::fs::read(out.join("index_bg.wasm")).doing("cannot read the Worker's Wasm")?;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &bytes).doing("cannot compress the Worker's Wasm")?;
    let gzipped = gzip.finish().doing("cannot compress the Worker's Wasm")?.len();
    Ok(Size { raw: bytes.len(), gzipped })
}

/// Held while a Worker is looked at and built: two commands that were started at once would mix what they make.
fn lock() -> Result<File> {
    let folder = target().join("workers");
    std::fs::create_dir_all(&folder).doing(format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join("lock")).doing(format!("cannot write in {}", folder.display()))?;
    file.lock().doing("cannot wait for who builds the Workers")?;
    Ok(file)
}

/// A digest of the files the Worker is made of. Contents, not times: a fresh checkout has new times.
fn fingerprint(package: &str) -> Result<String> {
    let mut files = Vec::new();
    let own = ["src", "entry.js", "Cargo.toml"].map(|name| format!("{package}/{name}"));
    for source in own.iter().map(String::as_str).chain(SHARED_SOURCES) {
        collect(&root().join(source), &mut files)?;
    }
    files.sort();
    let mut bytes = Vec::new();
    for file in files {
        bytes.extend_from_slice(file.to_string_lossy().as_bytes());
        bytes.extend(std::fs::read(&file).doing(format!("cannot read {}", file.display()))?);
    }
    Ok(kv_schemas::claims::body_digest(&bytes))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).doing(format!("cannot read {}", path.display()))? {
        collect(&entry.doing(format!("cannot read {}", path.display()))?.path(), files)?;
    }
    Ok(())
}

fn compile(package: &str, out: &Path) -> Result<()> {
    let log = |what: &str| logs().join(format!("{package}-{what}.log"));
    let mut cargo = crate::cargo();
    cargo.args(["build", "--lib", "--package", package, "--profile", "edge", "--target", "wasm32-unknown-unknown"]);
    cargo.current_dir(root()).env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", remap_flags());
    step(&format!("compiling the Worker {package}"), &log("cargo"), &mut cargo)?;

    let stage = target().join("workers").join(package);
    let _ = std::fs::remove_dir_all(&stage);
    std::fs::create_dir_all(&stage).doing(format!("cannot make {}", stage.display()))?;
    let mut bindgen = Command::new(program("wasm-bindgen-cli"));
    bindgen.arg(target().join("wasm32-unknown-unknown/edge").join(format!("{package}.wasm")));
    bindgen.args(["--target", "module", "--no-typescript", "--out-name", "index", "--out-dir"]).arg(&stage);
    // What brings the Worker back after a panic (`entry.js`).
    bindgen.args(["--experimental-reset-state-function", "--force-enable-abort-handler"]);
    step("making its bindings", &log("bindgen"), &mut bindgen)?;

    let read = |name: &str| std::fs::read_to_string(stage.join(name)).doing(format!("cannot read {name}"));
    let write = |name: &str, text: String| std::fs::write(stage.join(name), text).doing(format!("cannot write {name}"));
    let bindings = without_unused_classes(&read("index.js")?.replace("import source ", "import "));
    write("index.js", bindings.clone())?;
    for (folder, name) in [(package, "entry.js"), ("platform", "recovery.js")] {
        let script = root().join(folder).join(name);
        std::fs::copy(&script, stage.join(name)).doing(format!("cannot copy {}", script.display()))?;
    }
    bundle(&stage, "bundle.js", &[], &log("bundle"))?;
    write("graph.json", graph(&exports_in(&bindings), &exports_in(&read("bundle.js")?)))?;
    shrink(&stage, &log("shrink"))?;

    std::fs::create_dir_all(out).doing(format!("cannot make {}", out.display()))?;
    bundle(&stage, "small.js", &["--minify"], &log("minify"))?;
    for (from, to) in [("small.js", "index.js"), ("small.wasm", "index_bg.wasm")] {
        std::fs::copy(stage.join(from), out.join(to)).doing(format!("cannot write {to}"))?;
    }
    Ok(())
}

/// Builds a Worker of the `worker` crate in a folder of its own with the tool that its makers ship, as they would have it; says
/// where it is. To measure beside, so not with the means above.
pub fn build_peer(folder: &str) -> Result<PathBuf> {
    cargo_tool("worker-build", WORKER_BUILD)?;
    let (folder, tools) = (root().join(folder), node_bin());
    let mut build = Command::new(program("worker-build"));
    build.arg("--release").current_dir(&folder).env("CARGO_TARGET_DIR", target().join("peers"));
    // It would download its own.
    build.env("WASM_BINDGEN_BIN", program("wasm-bindgen-cli"));
    build.env("ESBUILD_BIN", tools.join("esbuild")).env("WASM_OPT_BIN", tools.join("wasm-opt"));
    step("building the Worker to measure beside", &logs().join("worker-build.log"), &mut build)?;
    Ok(folder.join("build"))
}

fn bundle(stage: &Path, to: &str, options: &[&str], log: &Path) -> Result<()> {
    let mut esbuild = Command::new(node_bin().join("esbuild"));
    esbuild.args(["entry.js", "--bundle", "--format=esm", "--external:./index_bg.wasm", "--external:cloudflare:*"]);
    esbuild.args(options).arg(format!("--outfile={to}")).current_dir(stage);
    step("bundling", log, &mut esbuild)
}

/// Crates make classes for JavaScript that no entry uses. Two things that wasm-bindgen writes for each keep the bundler from
/// leaving them out, and with them their share of the Wasm: a registry, which it cannot know to be harmless to make, and
/// the class's `Symbol.dispose`, which nothing here calls.
fn without_unused_classes(bindings: &str) -> String {
    let harmless = bindings.replace(": new FinalizationRegistry(", ": /* @__PURE__ */ new FinalizationRegistry(");
    let lines = harmless.lines().filter(|line| !line.starts_with("if (Symbol.dispose) "));
    lines.fold(String::with_capacity(harmless.len()), |all, line| all + line + "\n")
}

/// Exports of the Wasm that some JavaScript uses: `wasm.name`, as wasm-bindgen writes it.
fn exports_in(script: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (place, _) in script.match_indices("wasm") {
        let before = script[..place].chars().next_back();
        let rest = script[place + "wasm".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(name) = rest.strip_prefix('.') else { continue };
        let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$')).collect();
        let is_word = before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '/'));
        if !is_word && !name.is_empty() {
            names.insert(name);
        }
    }
    names
}

/// For wasm-metadce: of all exports, what is reached from outside.
fn graph(all: &BTreeSet<String>, used: &BTreeSet<String>) -> String {
    let node = |name: &String| serde_json::json!({ "name": format!("export:{name}"), "export": name });
    let reaches: Vec<String> = used.iter().map(|name| format!("export:{name}")).collect();
    let outside = serde_json::json!({ "name": "outside", "root": true, "reaches": reaches });
    serde_json::Value::Array(all.union(used).map(node).chain([outside]).collect()).to_string()
}

/// What wasm-opt puts in place of calls: small functions, a little more of them than it would, since a call costs more than
/// they do; and of functions with one caller only those that are small, where it would take all. Raw, that is more; compressed
/// it is 7 kB less, since functions of one kind that stand alone are like each other.
const INLINED: [&str; 2] = ["--always-inline-max-function-size=6", "--one-caller-inline-max-function-size=30"];

/// Names in the Wasm would be a third of the download; nobody reads them there.
fn shrink(stage: &Path, log: &Path) -> Result<()> {
    let features = || FEATURES.iter().map(|feature| format!("--enable-{feature}"));
    let mut metadce = node_command("wasm-metadce");
    metadce.current_dir(stage).args(["index_bg.wasm", "-f", "graph.json", "-o", "used.wasm"]).args(features());
    step("leaving out what is not called", log, &mut metadce)?;
    let mut optimise = node_command("wasm-opt");
    // The lowest kilobyte is the far end of the stack, where no static lies: offsets may be folded. Optimised twice:
    // functions that differ in name only can be one the second time.
    optimise.current_dir(stage).args(["used.wasm", "--strip-debug", "--strip-producers"]).args(INLINED);
    optimise.args(["-Oz", "--low-memory-unused"]);
    optimise.args(["-Oz", "-o", "small.wasm"]).args(features());
    step("making it small", log, &mut optimise)?;
    if !stage.join("small.wasm").is_file() { said("wasm-opt wrote nothing") } else { Ok(()) }
}

/// Panic messages name source files; where this machine keeps them is nobody's business, and bytes.
fn remap_flags() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let registry = home.unwrap_or_default().join("registry/src");
    let sources = std::fs::read_dir(&registry).into_iter().flatten().flatten().map(|entry| entry.path());
    // The last that fits is taken.
    let prefixes = [root(), registry.clone()].into_iter().chain(sources);
    prefixes.map(|prefix| format!("--remap-path-prefix={}=src", prefix.display())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_an_unused_class_is_taken_out_of_the_bindings() {
        let bindings = "class A {}\nif (Symbol.dispose) A.prototype[Symbol.dispose] = A.prototype.free;\nconst F = (typeof \
                        FinalizationRegistry === 'undefined')\n    ? {}\n    : new FinalizationRegistry(free);\n";
        let expected = "class A {}\nconst F = (typeof FinalizationRegistry === 'undefined')\n    ? {}\n    : /* @__PURE__ */ \
                        new FinalizationRegistry(free);\n";
        assert_eq!(without_unused_classes(bindings), expected);
    }

    #[test]
    fn exports_are_found_where_wasm_bindgen_uses_them() {
        let script =
            "wasm.fetch(a); wasm2.__wbindgen_free(1); notwasm.x; let wasm = y; import('./wasm.js'); wasm.memory.buffer";
        let found: Vec<String> = exports_in(script).into_iter().collect();
        assert_eq!(found, ["__wbindgen_free", "fetch", "memory"]);
    }
}
