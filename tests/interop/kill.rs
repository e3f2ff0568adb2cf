//! SIGKILL under load: nothing acknowledged is lost, nothing is there twice.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::install::{self, run, skipped};
use crate::scratch;

/// How often the broker is killed; `CORELANE_KILLS` for a long run.
fn kills() -> usize {
    std::env::var("CORELANE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3)
}

/// Produces numbered records and verifies them.
fn numbered(broker: &mut Broker, topic: &str, acknowledged: &str, count: &str) {
    let server = broker.address.clone();
    let program = |arguments: &[&str]| {
        let mut java = install::java().expect("installed by the caller");
        run(java.arg("Numbered").args(arguments)).unwrap_or_else(|error| panic!("{error}\n{}", broker.log()))
    };
    program(&["produce", &server, topic, count, "300", acknowledged]);
    let said = program(&["verify", &server, topic, acknowledged]);
    assert!(said.contains(&format!("read {count} acknowledged {count} problems 0")), "{said}");
}

#[test]
fn another_number_of_shards_serves_the_same_partitions() {
    if let Err(why) = install::java() {
        skipped("another_number_of_shards_serves_the_same_partitions", &why);
        return;
    }
    let cores: Vec<usize> = (0..std::thread::available_parallelism().map_or(1, usize::from).min(2)).collect();
    let dir = scratch("shards");
    let data = dir.join("data");
    let settings = |count: usize| {
        let list: Vec<String> = cores.iter().take(count).map(usize::to_string).collect();
        format!("cores={}", list.join(","))
    };
    let mut written: Vec<(String, String)> = Vec::new();
    for (round, count) in [1, cores.len(), 1, cores.len()].into_iter().enumerate() {
        let mut broker = Broker::start(&data, &["num.partitions=8", &settings(count)]);
        for (topic, acknowledged) in &written {
            let mut java = install::java().expect("installed above");
            let verified = run(java.args(["Numbered", "verify", &broker.address, topic, acknowledged]));
            verified.unwrap_or_else(|error| panic!("{topic} on {count} shards: {error}\n{}", broker.log()));
        }
        let topic = format!("round-{round}");
        let acknowledged = dir.join(&topic).display().to_string();
        numbered(&mut broker, &topic, &acknowledged, "20000");
        written.push((topic, acknowledged));
        broker.kill();
    }
    std::fs::remove_dir_all(&dir).ok();
}

#[test]
fn sigkill_under_load_loses_and_doubles_nothing() {
    if let Err(why) = install::java() {
        skipped("sigkill_under_load_loses_and_doubles_nothing", &why);
        return;
    }
    let dir = scratch("kill");
    let mut broker = Broker::start(&dir.join("data"), &["num.partitions=4"]);
    let acknowledged = dir.join("acknowledged").display().to_string();
    let server = broker.address.clone();
    let count = (kills() * 60_000).to_string();
    let mut producer = install::java().expect("installed above");
    producer.args(["Numbered", "produce", &server, "numbered", &count, "500", &acknowledged]);
    let mut producer = producer.stdout(Stdio::null()).spawn().expect("java runs");
    let mut done = 0;
    let size = || std::fs::metadata(&acknowledged).map_or(0, |file| file.len());
    while done < kills() {
        // A kill comes some way into the load: when more was acknowledged than at the kill before.
        let before = size();
        let waited = Instant::now();
        let some_way = 65_536 + (done as u64 * 7919) % 300_000;
        while size() < before + some_way && waited.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let running = producer.try_wait().expect("a child of ours").is_none();
        if !running {
            break;
        }
        broker.kill();
        broker.restart();
        done += 1;
    }
    assert!(done > 0, "the load outlived at least one kill");
    let status = producer.wait().expect("a child of ours");
    assert!(status.success(), "every record was acknowledged in the end\n{}", broker.log());
    let mut verify = install::java().expect("installed above");
    let verified = run(verify.args(["Numbered", "verify", &server, "numbered", &acknowledged]));
    let said = verified.unwrap_or_else(|error| panic!("{error}\n{}", broker.log()));
    assert!(said.contains(&format!("read {count} acknowledged {count} problems 0")), "{said}");
    let recoveries: Vec<String> = broker
        .log()
        .lines()
        .filter_map(|line| line.split("recovery_ms=").nth(1)?.split_whitespace().next().map(str::to_string))
        .collect();
    println!("{done} kills; recovery in ms: {}", recoveries.join(" "));
    std::fs::remove_dir_all(&dir).ok();
}
