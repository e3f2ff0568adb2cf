//! Report: the Python that reads results and draws them is tested with the rest.

use std::process::Command;

#[test]
fn perf_reports_say_what_the_results_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/perf");
    let output = match Command::new("python3").arg("test_report.py").current_dir(folder).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED, perf/report.py is not tested: python3: {error}");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
