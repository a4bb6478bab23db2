//! A new migration is compiled in without a change of code.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
