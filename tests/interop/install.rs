//! Install: real clients under `target/interop/`, each once, from its registry.
//!
//! A missing runtime or an unreachable registry skips the tests that need it, loudly.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop")
}

/// Says that a test isn't run, and why. The line is looked for by people, so it is one line.
pub fn skipped(test: &str, why: &str) {
    let why = why.lines().next().unwrap_or_default();
    eprintln!("SKIPPED {test}: {why}");
}

/// Runs `make` in `target/interop/<name>` unless it succeeded there before.
fn once(
    name: &str,
    version: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = root().join(format!("{name}-{version}"));
    let done = dir.join("installed");
    if !done.exists() {
        // What a broken attempt left behind isn't trusted.
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        make(&dir)?;
        std::fs::write(&done, version).map_err(|error| error.to_string())?;
    }
    Ok(dir)
}

/// Runs a command to its end; its output is the error.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?} failed with {}: {stdout}{stderr}", command.get_program(), output.status))
}

/// kcat with its libraries, unpacked from Debian's packages without installing them.
pub fn kcat() -> Result<Command, String> {
    const PACKAGES: [&str; 6] = ["kcat", "librdkafka1", "libyajl2", "liblz4-1", "libzstd1", "libsnappy1v5"];
    let dir = once("kcat", "debian", |dir| {
        if run(Command::new("apt-get").arg("download").args(PACKAGES).current_dir(dir)).is_err() {
            // A fresh machine has no package lists yet.
            run(Command::new("apt-get").args(["-qq", "update"]))?;
            run(Command::new("apt-get").arg("download").args(PACKAGES).current_dir(dir))?;
        }
        for entry in std::fs::read_dir(dir).map_err(|error| error.to_string())?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg").arg("-x").arg(entry.path()).arg(dir.join("root")))?;
            }
        }
        Ok(())
    })?;
    let mut command = Command::new(dir.join("root/usr/bin/kcat"));
    command.env("LD_LIBRARY_PATH", dir.join("root/usr/lib/x86_64-linux-gnu"));
    Ok(command)
}

/// A Python with librdkafka's binding, kafka-python and aiokafka.
pub fn python() -> Result<Command, String> {
    const PACKAGES: [&str; 3] = ["confluent-kafka==2.16.1", "kafka-python==3.0.12", "aiokafka==0.14.0"];
    let dir = once("python", "1", |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir.join("venv")))?;
        run(Command::new(dir.join("venv/bin/pip"))
            .args(["install", "-q", "lz4", "zstandard", "python-snappy"])
            .args(PACKAGES))?;
        Ok(())
    })?;
    Ok(Command::new(dir.join("venv/bin/python")))
}

/// Node with kafkajs.
pub fn node() -> Result<Command, String> {
    let dir = once("node", "1", |dir| {
        run(Command::new("node").arg("--version"))?;
        std::fs::write(dir.join("package.json"), "{\"private\": true}").map_err(|error| error.to_string())?;
        run(Command::new("npm")
            .args(["install", "--silent", "--no-fund", "--no-audit", "kafkajs@2.2.4"])
            .current_dir(dir))?;
        Ok(())
    })?;
    let mut command = Command::new("node");
    command.env("NODE_PATH", dir.join("node_modules"));
    Ok(command)
}

/// Java with Kafka's client, tools and DumpLogSegments on its class path, and our own small programs.
pub fn java() -> Result<Command, String> {
    const POM: &str = "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
        <groupId>interop</groupId><artifactId>clients</artifactId><version>1</version><packaging>pom</packaging>\
        <dependencies>\
        <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>4.3.1</version></dependency>\
        <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-clients</artifactId><version>4.3.1</version></dependency>\
        <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.3.1</version></dependency>\
        <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>\
        </dependencies></project>";
    let dir = once("java", "4.3.1", |dir| {
        std::fs::write(dir.join("pom.xml"), POM).map_err(|error| error.to_string())?;
        let libs = format!("-DoutputDirectory={}", dir.join("libs").display());
        run(Command::new("mvn").args(["-q", "-B", "dependency:copy-dependencies", &libs]).current_dir(dir))?;
        Ok(())
    })?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients");
    let class_path = format!("{}:{}", dir.join("classes").display(), dir.join("libs/*").display());
    {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let program = sources.join("Numbered.java");
        let class = dir.join("classes/Numbered.class");
        let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        if modified(&class) < modified(&program) {
            run(Command::new("javac")
                .arg("-cp")
                .arg(&class_path)
                .arg("-d")
                .arg(dir.join("classes"))
                .arg(&program))?;
        }
    }
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]).arg("-cp").arg(class_path);
    Ok(command)
}
