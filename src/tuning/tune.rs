//! Tune: `corelane tune list`, `check`, `apply` and `revert`.

use super::check_text::{say, wrapped};
use super::knob::{self, Action, KNOBS, Knob, Place, Status};

/// Names column, wide enough for every knob.
const NAME_WIDTH: usize = 16;

/// The knobs of that name, or all.
fn chosen(name: &str) -> Result<Vec<&'static Knob>, String> {
    if name == "all" {
        return Ok(KNOBS.iter().collect());
    }
    let names = || KNOBS.iter().map(|knob| knob.name).collect::<Vec<_>>().join(", ");
    let found = knob::find(name);
    found.map(|knob| vec![knob]).ok_or_else(|| format!("there is no knob {name}; there are all, {}", names()))
}

/// What every knob sets; of a single one all that its file says.
pub fn list(name: &str) -> Result<(), String> {
    for knob in chosen(name)? {
        let header = knob.header().ok_or_else(|| format!("{}: its header is incomplete", knob.name))?;
        let row = |title: &str, text: &str| say(&wrapped(title, NAME_WIDTH, text));
        row(knob.name, &header.what)?;
        if name != "all" {
            row("  why", &header.why)?;
            row("  risk", &header.risk)?;
            row("  effect", &header.effect)?;
            row("  lasts", &header.lasts)?;
        }
    }
    Ok(())
}

/// Prints a line per knob. The status of a single one, or whether any of all is off.
pub fn check(name: &str, place: &Place) -> Result<Status, String> {
    let knobs = chosen(name)?;
    let mut worst = Status::Ok;
    for knob in &knobs {
        let (status, text) = knob.check(place)?;
        say(&format!("{:NAME_WIDTH$}{status:8}{text}\n", knob.name))?;
        if status == Status::Off || knobs.len() == 1 {
            worst = status;
        }
    }
    Ok(worst)
}

/// Applies or reverts; what fails doesn't keep the others from it. As `check`, with `Off` for failed.
pub fn change(name: &str, action: Action, place: &Place, is_dry_run: bool) -> Result<Status, String> {
    let knobs = chosen(name)?;
    let mut worst = Status::Ok;
    for knob in &knobs {
        say(&format!("{}:\n", knob.name))?;
        let output = knob.command(action, place, is_dry_run).output();
        let output = output.map_err(|error| format!("/bin/sh can't be run: {error}"))?;
        for text in [&output.stdout, &output.stderr] {
            for line in String::from_utf8_lossy(text).lines() {
                say(&format!("  {line}\n"))?;
            }
        }
        let status = match output.status.code() {
            Some(0) => Status::Ok,
            Some(2) => Status::Absent,
            _ => Status::Off,
        };
        if status == Status::Off || knobs.len() == 1 {
            worst = status;
        }
    }
    Ok(worst)
}
