//! The example configuration that is shipped is complete and right.

use std::path::Path;

use mainstay::config::Document;
use mainstay::config::schema::SCHEMA;

fn example() -> (std::path::PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mainstay.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

fn secret() -> [(String, String); 1] {
    [("MAINSTAY_SECRET".to_owned(), "not needed here".to_owned())]
}

#[test]
fn it_can_be_run_as_it_stands() {
    Document::load(Some(&example().0), secret()).unwrap().run().unwrap();
}

/// Lines that begin with `#` and no space are settings that are switched off.
#[test]
fn it_shows_every_key_of_the_file() {
    let on: String = example()
        .1
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(off) if off.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                off.to_owned() + "\n"
            }
            _ => line.to_owned() + "\n",
        })
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), on).unwrap();
    let document = Document::load(Some(file.path()), secret()).unwrap();
    for key in SCHEMA.iter().filter(|key| !key.secret) {
        let shown = [key.path.replace('*', "0"), key.path.replace('*', "1")];
        assert!(shown.iter().any(|path| document.is_given(path)), "{} is not shown", key.path);
    }
}
