//! Instructions: how many the hot functions take, held against `benches/instructions.toml`.
//!
//! Callgrind (of valgrind) runs this program and counts while `measured` runs; noise of the machine doesn't
//! reach its figures. It executes without the caches and the AVX-512 of the real processor, so a figure says
//! that a function does more or less than before, not how fast it is: `hot_path` does.
//!
//! Two runs of one binary give the same figures: random numbers are seeded, the disk is the simulated one,
//! there is one thread, valgrind shows every processor with AVX2 as the same one, and what the allocator does
//! isn't counted, which depends on everything allocated before, the program's own path among it.
//! Another compiler, libc or valgrind gives others, so that the file names those it was written with.

mod fixtures;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use corelane::base::checksum::crc32c;
use corelane::base::ids::Offset;
use corelane::protocol::fetch_response::FetchFrame;
use corelane::protocol::record_batch::validate;
use fixtures::log::Log;
use fixtures::{
    FETCH_VERSIONS, PRODUCE_VERSIONS, SHAPES, batch, encode_fetch, produce_body, random_bytes, visit_produce,
};
use serde::{Deserialize, Serialize};

/// A figure that grew by more fails.
const GROWTH_PERCENT_MAX: u64 = 1;
/// Runs of a function before the one that counts: lazy parts are ready and buffers have their size.
const WARM_RUNS: usize = 3;

/// Of unoptimised checks on, or as the broker is released.
const PROFILE: &str = if cfg!(debug_assertions) { "test" } else { "release" };
const WRITE_COMMAND: &str = if cfg!(debug_assertions) {
    "cargo test --bench instructions -- --write"
} else {
    "cargo bench --bench instructions -- --write"
};

// ---- The functions ---------------------------------------------------------------------------

/// Callgrind counts while this runs.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    work();
}

struct Case {
    name: String,
    run: Box<dyn FnOnce()>,
}

fn case(name: impl Into<String>, run: impl FnOnce() + 'static) -> Case {
    Case { name: name.into(), run: Box::new(run) }
}

/// Runs `work` until it is warm, and once more to be counted.
fn count(mut work: impl FnMut()) {
    for _ in 0..WARM_RUNS {
        work();
    }
    measured(&mut work);
}

fn cases() -> Vec<Case> {
    let mut cases = vec![case("crc32c/16384", || {
        let bytes = random_bytes(16 << 10);
        count(|| {
            black_box(crc32c(black_box(&bytes)));
        });
    })];
    for shape in SHAPES {
        cases.push(case(format!("batch_check/{}", shape.name), move || {
            let batch = batch(shape);
            count(|| assert!(validate(black_box(&batch)).is_ok()));
        }));
        for version in PRODUCE_VERSIONS {
            cases.push(case(format!("produce_decode/{}/v{version}", shape.name), move || {
                let body = produce_body(version, &batch(shape), 1);
                count(|| {
                    black_box(visit_produce(version, black_box(&body)));
                });
            }));
        }
        cases.push(case(format!("append/{}", shape.name), move || {
            let batch = batch(shape);
            let mut log = Log::filled(&batch, WARM_RUNS);
            measured(&mut || log.append(black_box(&batch)));
        }));
    }
    for version in FETCH_VERSIONS {
        cases.push(case(format!("fetch_encode/16 partitions/v{version}"), move || {
            let mut frame = FetchFrame::default();
            count(|| frame = encode_fetch(std::mem::take(&mut frame), version, 16, black_box(1 << 20)));
        }));
    }
    // Memory holds the last 4 MiB of 6.
    let filled = || Log::filled(&batch(SHAPES[1]), 400);
    cases.push(case("find/memory", move || {
        let mut log = filled();
        let offset = Offset(log.end().0 - 1000);
        let mut plan = None;
        measured(&mut || plan = log.plan(black_box(offset), 1));
        log.release(plan.expect("memory has it"));
    }));
    cases.push(case("find/index", move || {
        let mut log = filled();
        let mut plan = None;
        measured(&mut || plan = log.plan(black_box(Offset(1000)), 1));
        assert!(plan.is_none(), "the index leads to the disk");
        log.settle();
    }));
    cases.push(case("fetch_fill/memory/256 KiB", move || {
        let mut log = filled();
        let offset = Offset(log.end().0 - 1000);
        let mut out = Vec::with_capacity(512 << 10);
        let mut plan = log.plan(offset, 256 << 10).expect("memory has it");
        measured(&mut || log.fill(&mut plan, &mut out));
        log.release(plan);
    }));
    cases
}

// ---- Counting --------------------------------------------------------------------------------

/// While one of these runs, nothing is counted.
const ALLOCATOR: [&str; 6] = ["malloc", "free", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// How this program is told to run the functions instead of having them counted.
const RUN: &str = "run-the-functions";

/// Callgrind's figures, by function; or why there are none.
fn instructions() -> Result<BTreeMap<String, u64>, String> {
    let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = folder.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--combine-dumps=yes"])
        .args(
            ["zero-before", "toggle-collect", "dump-after"]
                .map(|what| format!("--{what}=instructions::measured")),
        )
        .args(ALLOCATOR.map(|function| format!("--toggle-collect={function}")))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(RUN)
        // The environment lies on the stack and would move it.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the functions run under valgrind:\n{said}");
    let text = std::fs::read_to_string(&out).map_err(|error| error.to_string())?;
    // The last part is what came after all of them.
    let parts = text.split("\npart: ").filter(|part| part.contains("\ndesc: Trigger: --dump-after"));
    let total = |part: &str| part.lines().find_map(|line| line.strip_prefix("totals: ")?.parse().ok());
    let totals: Vec<u64> = parts.filter_map(total).collect();
    assert_eq!(totals.len(), names.len(), "one part of callgrind's output a function:\n{said}");
    Ok(names.into_iter().zip(totals).collect())
}

/// What figures depend on besides the code; or what is missing.
fn toolchain() -> Result<String, String> {
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        let output = output.map_err(|error| format!("{program} isn't there: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok::<_, String>(said.lines().next().unwrap_or_default().to_owned())
    };
    let rustc = first_line("rustc", "--version")?;
    let valgrind = first_line("valgrind", "--version")?;
    let libc = first_line("getconf", "GNU_LIBC_VERSION")?;
    let features = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let avx2 = if features.contains(" avx2 ") { "with AVX2" } else { "without AVX2" };
    let mut toolchain = format!("{rustc}; {valgrind}; {libc}; {} {avx2}", std::env::consts::ARCH);
    // Both change what is inlined.
    for name in ["CARGO_INCREMENTAL", "RUSTFLAGS"] {
        if let Some(value) = std::env::var_os(name) {
            toolchain += &format!("; {name}={}", value.display());
        }
    }
    Ok(toolchain)
}

// ---- Holding against the file ----------------------------------------------------------------

/// The file: by profile, what was found with which tools.
type File = BTreeMap<String, Recorded>;

#[derive(Deserialize, Serialize)]
struct Recorded {
    toolchain: String,
    instructions: BTreeMap<String, u64>,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
}

fn read() -> File {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    toml::from_str(&text).expect("benches/instructions.toml has a table for each profile")
}

fn write(toolchain: String, instructions: BTreeMap<String, u64>) {
    let mut file = read();
    file.insert(PROFILE.to_owned(), Recorded { toolchain, instructions });
    let head = format!("# Written by `{WRITE_COMMAND}`, and by the same for the other profile.\n\n");
    let text = head + &toml::to_string(&file).expect("tables of numbers");
    std::fs::write(path(), text).expect("the folder is there");
}

/// What was found beside what is recorded.
#[derive(Default)]
struct Verdict {
    table: String,
    grown: Vec<String>,
    shrunk: Vec<String>,
}

fn compare(recorded: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> Verdict {
    let mut verdict = Verdict::default();
    for (name, after) in found {
        let Some(before) = recorded.get(name) else {
            verdict.grown.push(format!("{name}: {after}, and nothing is recorded"));
            continue;
        };
        let percent = (*after as f64 / *before as f64 - 1.0) * 100.0;
        let line = format!("{name}: {before} before, {after} now ({percent:+.2} %)");
        writeln!(verdict.table, "  {line}").expect("text takes all");
        if after * 100 > before * (100 + GROWTH_PERCENT_MAX) {
            verdict.grown.push(line);
        } else if after * 100 < before * (100 - GROWTH_PERCENT_MAX) {
            verdict.shrunk.push(line);
        }
    }
    let gone = recorded.keys().filter(|name| !found.contains_key(*name));
    verdict.shrunk.extend(gone.map(|name| format!("{name}: recorded, and no function of that name")));
    verdict
}

/// The comparison finds what it should, whatever valgrind says today.
fn check_comparison() {
    let counts = |of: u64| BTreeMap::from([("f".to_owned(), of)]);
    let verdict = |before, after| {
        let verdict = compare(&counts(before), &counts(after));
        (verdict.grown.len(), verdict.shrunk.len())
    };
    assert_eq!(verdict(1000, 1010), (0, 0));
    assert_eq!(verdict(1000, 1011), (1, 0));
    assert_eq!(verdict(1000, 989), (0, 1));
    assert_eq!(compare(&BTreeMap::new(), &counts(1)).grown.len(), 1);
    assert_eq!(compare(&counts(1), &BTreeMap::new()).shrunk.len(), 1);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    if has(RUN) {
        cases().into_iter().for_each(|case| (case.run)());
        return ExitCode::SUCCESS;
    }
    check_comparison();
    match guard(has("--write")) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("SKIPPED: the guard of instructions. {why}\nTo record figures: `{WRITE_COMMAND}`");
            ExitCode::SUCCESS
        }
    }
}

/// Counts and compares, or writes; or says why that can't be here.
fn guard(writes: bool) -> Result<ExitCode, String> {
    let toolchain = toolchain()?;
    if writes {
        let found = instructions()?;
        println!("{found:#?}");
        write(toolchain, found);
        return Ok(ExitCode::SUCCESS);
    }
    let recorded = read().remove(PROFILE);
    let recorded =
        recorded.ok_or(format!("benches/instructions.toml has no figures of the {PROFILE} profile"))?;
    if recorded.toolchain != toolchain {
        return Err(format!(
            "figures were recorded with\n  {}\nand this is\n  {toolchain}",
            recorded.toolchain
        ));
    }
    let found = instructions()?;
    let verdict = compare(&recorded.instructions, &found);
    println!("instructions, {PROFILE} profile:\n{}", verdict.table);
    if !verdict.shrunk.is_empty() {
        println!(
            "less than recorded; write the new figures with `{WRITE_COMMAND}`:\n{}",
            verdict.shrunk.join("\n")
        );
    }
    if verdict.grown.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "FAILED: more instructions than benches/instructions.toml has, by over {GROWTH_PERCENT_MAX} %:\n{}\n\
         Where the change is worth that, say so and write the new figures: `{WRITE_COMMAND}`",
        verdict.grown.join("\n")
    );
    Ok(ExitCode::FAILURE)
}
