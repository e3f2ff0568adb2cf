//! Tidy: the house rules, held against the tree. Each check says what to do about a finding.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules in the order of `src/lib.rs`: each imports only from those below it.
fn modules() -> Vec<String> {
    let lib = read(Path::new("src/lib.rs"));
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_string))
        .collect()
}

fn read(path: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::from(dir)];
    while let Some(dir) = dirs.pop() {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(&dir);
        for entry in fs::read_dir(full).into_iter().flatten().flatten() {
            let path = dir.join(entry.file_name());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Code without comments and without what follows `#[cfg(test)] mod`.
fn code_of(path: &Path) -> String {
    let text = read(path);
    let tests = ["#[cfg(test)]\nmod ", "#[cfg(all(test"].iter().filter_map(|start| text.find(start));
    let end = tests.min().unwrap_or(text.len());
    text[..end].lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn module_of(path: &Path) -> Option<String> {
    let part = path.strip_prefix("src").ok()?.iter().next()?.to_str()?;
    Some(part.trim_end_matches(".rs").to_string())
}

fn is_test_file(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs")
}

fn source_files() -> Vec<PathBuf> {
    rust_files("src").into_iter().filter(|path| !is_test_file(path)).collect()
}

fn report(findings: &[String], remedy: &str) {
    assert!(findings.is_empty(), "{}\n{remedy}", findings.join("\n"));
}

#[test]
fn modules_import_only_from_below() {
    let order = modules();
    assert!(order.len() > 10, "src/lib.rs lists the modules");
    let place = |module: &str| order.iter().position(|other| other == module);
    let mut findings = Vec::new();
    for path in source_files() {
        let Some(own) = module_of(&path).and_then(|module| place(&module)) else { continue };
        let code = code_of(&path);
        for (index, _) in code.match_indices("crate::") {
            let rest = &code[index + "crate::".len()..];
            let imported: String =
                rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if place(&imported).is_some_and(|imported| imported < own) {
                findings.push(format!("{} imports from {imported}, which stands above it", path.display()));
            }
        }
    }
    report(&findings, "Pass a value down, or move the type down.");
}

/// Module, what its code must not contain, and why.
const NEVER: &[(&str, &[&str], &str)] = &[
    ("protocol", &["crate::ring", "crate::log", "crate::metrics"], "bytes are testable and fuzzable alone"),
    ("api", &["crate::log::Lane", "crate::ring", "crate::net"], "decisions are pure"),
    ("coordinator", &["crate::log", "crate::ring", "crate::net"], "decisions are pure"),
    ("catalog", &["crate::log", "crate::ring", "crate::net"], "decisions are pure"),
    (
        "net",
        &["crate::api", "crate::catalog", "crate::coordinator", "crate::partition", "crate::log"],
        "transport knows frames, not meaning",
    ),
    ("ring", &["crate::protocol", "crate::log"], "it knows buffers and files, not Kafka"),
];

/// Banned words, which modules and files may use them all the same, and why.
const BANNED: &[(&[&str], &[&str], &str)] = &[
    (
        &["tokio::", "axum::", "openraft::", "redb::"],
        &["control", "console", "server"],
        "no second runtime on a shard",
    ),
    (&["glommio::"], &["shard/glommio_host.rs"], "an optional host only"),
    (
        &[
            "std::fs::",
            "std::net::Tcp",
            "Instant::now",
            "SystemTime::now",
            "Mutex<",
            "RwLock<",
            "std::thread::",
        ],
        &["ring", "server", "control", "console", "tuning", "main"],
        "the kernel, the clock, threads and locks are reached through the ring",
    ),
    (&["kacrab_protocol"], &["protocol"], "one door to the cold codec"),
    (&["todo!(", "unimplemented!(", "dbg!("], &[], "nothing unfinished is called done"),
];

#[test]
fn the_never_list_holds() {
    let mut findings = Vec::new();
    for path in source_files() {
        let Some(own) = module_of(&path) else { continue };
        let code = code_of(&path);
        for (module, never, why) in NEVER.iter().filter(|(module, _, _)| *module == own) {
            for word in never.iter().filter(|word| code.contains(**word)) {
                findings.push(format!("{}: {module} never uses {word}: {why}", path.display()));
            }
        }
        let may_use = |allowed: &[&str]| allowed.iter().any(|part| *part == own || path.ends_with(part));
        for (words, allowed, why) in BANNED.iter().filter(|(_, allowed, _)| !may_use(allowed)) {
            for word in words.iter().filter(|word| code.contains(**word)) {
                findings.push(format!("{} uses {word} (allowed: {allowed:?}): {why}", path.display()));
            }
        }
    }
    report(&findings, "See the module's doc for what it never does.");
}

#[test]
fn unsafe_blocks_stay_in_ring_and_base_and_say_why_they_are_sound() {
    let mut findings = Vec::new();
    for path in source_files() {
        let module = module_of(&path).unwrap_or_default();
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let is_unsafe = ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|word| code.contains(word));
            if !is_unsafe {
                continue;
            }
            if module != "ring" && module != "base" {
                findings.push(format!("{}:{}: unsafe outside ring and base", path.display(), index + 1));
            }
            let before = &lines[index.saturating_sub(8)..=index];
            if !before.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                findings.push(format!("{}:{}: no SAFETY sentence", path.display(), index + 1));
            }
        }
    }
    report(&findings, "Name the invariant and who keeps it.");
}

#[test]
fn bytes_have_one_order_per_module() {
    let mut findings = Vec::new();
    for path in source_files() {
        let module = module_of(&path).unwrap_or_default();
        let code = code_of(&path);
        let big = ["big_endian", "to_be_bytes", "from_be_bytes"].iter().any(|word| code.contains(word));
        let little = ["little_endian", "to_le_bytes", "from_le_bytes"].iter().any(|word| code.contains(word));
        if big && !matches!(module.as_str(), "protocol" | "coordinator") {
            findings.push(format!("{}: big-endian outside protocol", path.display()));
        }
        if little && !matches!(module.as_str(), "log" | "base" | "ring") && !code.contains("snappy") {
            findings.push(format!("{}: little-endian outside log", path.display()));
        }
    }
    report(&findings, "Wire bytes are big-endian in protocol, disk bytes little-endian in log.");
}

/// Rows `| key | name | versions |` of a markdown table, as far as they begin with a number.
fn coverage_rows() -> BTreeSet<(i16, String)> {
    let text = read(Path::new("src/protocol/COVERAGE.md"));
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let key = cells.get(1)?.parse().ok()?;
            Some((key, format!("{} {}", cells.get(2)?, cells.get(3)?)))
        })
        .collect()
}

#[test]
fn coverage_lists_exactly_the_table() {
    let table: BTreeSet<(i16, String)> = corelane::api::table::TABLE
        .iter()
        .map(|served| {
            let versions = if served.version_min == served.version_max {
                format!("{}", served.version_min)
            } else {
                format!("{} to {}", served.version_min, served.version_max)
            };
            (served.key.number(), format!("{} {versions}", served.key.name()))
        })
        .collect();
    assert_eq!(coverage_rows(), table, "src/protocol/COVERAGE.md lists every served key with its versions");
}

#[test]
fn every_api_file_opens_with_its_contract() {
    const NOT_KEYS: [&str; 7] = [
        "mod.rs",
        "tests.rs",
        "table.rs",
        "error_map.rs",
        "fetch_session.rs",
        "groups.rs",
        "config_changes.rs",
    ];
    let mut findings = Vec::new();
    for path in rust_files("src/api") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if NOT_KEYS.contains(&name) {
            continue;
        }
        let text = read(&path);
        for wanted in ["Key ", "//! Behaviour:", "//! Versions:", "//! Deviations:", "//! Sources:"] {
            if !text.contains(wanted) {
                findings.push(format!("{}: no {wanted}", path.display()));
            }
        }
    }
    report(&findings, "Name, key, versions; Behaviour; Versions; Deviations; Sources.");
}

#[test]
fn every_module_is_on_the_map_and_says_what_it_owns() {
    let map = read(Path::new("src/ARCHITECTURE.md"));
    let mut findings = Vec::new();
    for module in modules() {
        if !map.contains(&format!("`{module}`")) {
            findings.push(format!("src/ARCHITECTURE.md doesn't name `{module}`"));
        }
        let text = read(&PathBuf::from(format!("src/{module}/mod.rs")));
        if !text.contains("//! Owns:") || !text.contains("//! Never:") {
            findings.push(format!("src/{module}/mod.rs doesn't say what it owns and never does"));
        }
    }
    report(&findings, "Leave the map true.");
}
