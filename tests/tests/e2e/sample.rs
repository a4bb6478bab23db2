//! The sample catalogue, whole.
use serde_json::Value;

#[test]
fn the_sample_catalogue_is_taken_and_taking_it_again_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let file = xtask::root().join("node_modules/vega-datasets/data/movies.json");
    assert!(file.is_file(), "the sample is not installed; run `cargo xtask setup`");
    let import = || -> Value {
        let database = state.path().join("db.sqlite");
        let (file, database) = (file.to_string_lossy(), database.to_string_lossy());
        let report = xtask::origin::run(&["import", &file, "--database", &database, "--report", "json"]);
        serde_json::from_str(&report.unwrap_or_else(|error| panic!("{error}"))).unwrap()
    };
    let first = import();
    let count = |report: &Value, name: &str| report[name].as_u64().unwrap();
    assert_eq!(count(&first, "read"), 3201);
    let refused: u64 = first["refused"].as_object().unwrap().values().map(|r| r["count"].as_u64().unwrap()).sum();
    assert_eq!(count(&first, "created") + refused, 3201, "every record is taken or refused with a reason: {first}");
    assert!(count(&first, "purges") > 0 && first["mended"].as_object().is_some_and(|mended| !mended.is_empty()));
    let second = import();
    assert_eq!(count(&second, "unchanged"), count(&first, "created"));
    for nothing in ["created", "updated", "rails_written", "purges"] {
        assert_eq!(count(&second, nothing), 0, "{nothing}: {second}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_sentence() {
    let state = tempfile::tempdir().unwrap();
    let database = state.path().join("db.sqlite");
    let database = database.to_string_lossy();
    let error =
        xtask::origin::run(&["import", "/does/not/exist.json", "--database", &database]).unwrap_err().to_string();
    assert!(error.starts_with("origin: cannot read /does/not/exist.json") && error.lines().count() == 1, "{error}");
    let broken = state.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    let error = xtask::origin::run(&["import", &broken.to_string_lossy(), "--database", &database]).unwrap_err();
    assert!(error.to_string().contains("is not of the format vega"), "{error}");
}
