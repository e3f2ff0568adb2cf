//! Run: the built generator as a child process, and the JSON object that it prints.

use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// How a run ended: exit code 0 is a valid result, 2 one that isn't valid.
pub struct Outcome {
    pub code: Option<i32>,
    pub result: Value,
    pub said: String,
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane-load"));
    command.args(arguments);
    command
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the binary was built with the tests")
}

/// Runs the generator, which prints a result.
pub fn load(arguments: &[&str]) -> Outcome {
    outcome(&mut command(arguments))
}

pub fn outcome(command: &mut Command) -> Outcome {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout);
    let result = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{said}"));
    Outcome { code: output.status.code(), result, said }
}

/// Runs the generator, which refuses; returns what it says.
pub fn refused(command: &mut Command) -> String {
    let output = output(command);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Outcome {
    /// A number of the result, by its path.
    pub fn number(&self, pointer: &str) -> f64 {
        let value = self.result.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no number at {pointer}: {}\n{}", self.result, self.said))
    }

    pub fn text(&self, pointer: &str) -> &str {
        let value = self.result.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("no text at {pointer}: {}\n{}", self.result, self.said))
    }

    pub fn is_valid(&self) -> bool {
        self.code == Some(0) && self.result["valid"] == Value::Bool(true)
    }
}
