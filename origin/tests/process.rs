//! The program itself: what its command line refuses.
use std::process::{Command, Output};

fn origin(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_origin")).args(arguments).output().unwrap()
}

#[test]
fn who_acts_has_a_name_of_bounded_length() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let keys = keys.to_str().unwrap();
    assert!(origin(&["keygen", "--keys", keys]).status.success());
    let token = |subject: &str| origin(&["token", "--keys", keys, "--role", "editor", "--subject", subject]);
    assert!(token(&"é".repeat(100)).status.success());
    for refused in ["", &"a".repeat(201), &"é".repeat(101)] {
        let said = String::from_utf8(token(refused).stderr).unwrap();
        assert!(said.contains("must have 1 to 200 bytes"), "{said}");
    }
}
