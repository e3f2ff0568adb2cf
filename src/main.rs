//! The binary `corelane`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use corelane::server::config::Config;
use corelane::server::config_file::{self, Given, Settings};
use corelane::server::log_command;
use corelane::server::start::Broker;
use corelane::tuning::knob::{Action, Place, Status};
use corelane::tuning::{check, check_text, tune};
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::EnvFilter;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A log broker that speaks the Kafka protocol. Without a command it starts a broker.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a broker; without options a complete one on 127.0.0.1:9092 in ./corelane-data.
    Start(StartArguments),
    /// Looks into the data of a stopped broker.
    #[command(subcommand)]
    Log(LogCommand),
    /// Looks at this machine before a broker is started on it: what is missing, what it costs, how to fix it.
    Check {
        #[command(flatten)]
        start: StartArguments,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Shows and changes settings of this machine that a broker gains by.
    #[command(subcommand)]
    Tune(TuneCommand),
}

#[derive(Subcommand)]
enum TuneCommand {
    /// Says what there is to set; of one knob also why, at what risk, and what was measured.
    List {
        #[arg(default_value = "all")]
        knob: String,
    },
    /// Prints what is set and what is wanted. Ends with 1 when something could be better, with 2 when the one knob
    /// that was asked for doesn't exist here.
    Check {
        #[arg(default_value = "all")]
        knob: String,
        #[command(flatten)]
        start: StartArguments,
    },
    /// Sets a knob, or all, and keeps what was set before. As root.
    Apply(ChangeArguments),
    /// Puts back what was set before. As root.
    Revert(ChangeArguments),
}

#[derive(Args)]
struct ChangeArguments {
    /// Its name, or all.
    knob: String,
    /// Shows what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    start: StartArguments,
}

#[derive(Subcommand)]
enum LogCommand {
    /// Prints journals, checkpoints, segments and indexes of a data folder, or one such file.
    Dump { path: PathBuf },
    /// Checks every checksum and index of a data folder against the data.
    Verify {
        dir: PathBuf,
        /// Reads no faster than this, bytes per second.
        #[arg(long)]
        bytes_per_second: Option<u64>,
    },
    /// Lets a damaged partition go on without its lost records, and says which these are.
    AcceptLoss {
        #[command(flatten)]
        start: StartArguments,
        /// The topic's name, "-", the partition's number.
        #[arg(value_name = "TOPIC-PARTITION")]
        partition: String,
    },
}

#[derive(Args, Default)]
struct StartArguments {
    /// Configuration: TOML, or Kafka's server.properties.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of all data, or several with commas; sets log.dirs.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Address to listen on, host:port; sets listeners.
    #[arg(long)]
    listen: Option<String>,
    /// One setting, KEY=VALUE, over file and environment; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let done = |()| ExitCode::SUCCESS;
    let result = match Arguments::parse().command {
        None => start(StartArguments::default()).map(done),
        Some(Command::Start(arguments)) => start(arguments).map(done),
        Some(Command::Log(command)) => log(command).map(done),
        Some(Command::Check { start, json }) => place(&start).and_then(|place| {
            let report = check::check(&place);
            check_text::print(&report, json)?;
            Ok(if report.is_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }),
        Some(Command::Tune(command)) => tuned(command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("corelane: {error}");
        ExitCode::FAILURE
    })
}

fn log(command: LogCommand) -> Result<(), String> {
    match command {
        LogCommand::Dump { path } => log_command::dump(&path),
        LogCommand::Verify { dir, bytes_per_second } => log_command::verify(&dir, bytes_per_second),
        LogCommand::AcceptLoss { start, partition } => settings(&start)
            .and_then(Config::read)
            .and_then(|config| log_command::accept_loss(&config, &partition)),
    }
}

fn tuned(command: TuneCommand) -> Result<ExitCode, String> {
    let change = |action, arguments: ChangeArguments| {
        tune::change(&arguments.knob, action, &place(&arguments.start)?, arguments.dry_run)
    };
    let status = match command {
        TuneCommand::List { knob } => tune::list(&knob).map(|()| Status::Ok),
        TuneCommand::Check { knob, start } => tune::check(&knob, &place(&start)?),
        TuneCommand::Apply(arguments) => change(Action::Apply, arguments),
        TuneCommand::Revert(arguments) => change(Action::Revert, arguments),
    };
    Ok(match status? {
        Status::Ok => ExitCode::SUCCESS,
        Status::Off => ExitCode::FAILURE,
        Status::Absent => ExitCode::from(2),
    })
}

/// The log directories and cores of a broker that is started so.
fn place(arguments: &StartArguments) -> Result<Place, String> {
    Place::of(&Config::read(settings(arguments)?)?)
}

fn settings(arguments: &StartArguments) -> Result<Settings, String> {
    let mut settings = Settings::new();
    if let Some(path) = &arguments.config {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name} can't be read: {error}"))?;
        settings.extend(config_file::parse(&name, &text)?);
    }
    settings.extend(config_file::from_environment(std::env::vars()));
    let mut option = |name: &str, value: String, origin: &str| {
        settings.insert(name.to_string(), Given { value, origin: origin.to_string() });
    };
    if let Some(data) = &arguments.data {
        option("log.dirs", data.display().to_string(), "--data");
    }
    if let Some(listen) = &arguments.listen {
        option("listeners", format!("PLAINTEXT://{listen}"), "--listen");
    }
    for pair in &arguments.set {
        let (name, value) = pair.split_once('=').ok_or_else(|| format!("--set {pair}: not KEY=VALUE"))?;
        option(name.trim(), value.trim().to_string(), "--set");
    }
    Ok(settings)
}

fn start(arguments: StartArguments) -> Result<(), String> {
    // Blocked before any thread exists, so that this one is who gets them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| format!("signals can't be blocked: {error}"))?;
    let config = Config::read(settings(&arguments)?)?;
    let data: Vec<String> = config.log_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let loopback_only = config.listeners.iter().all(|listener| listener.address.ip().is_loopback());
    let broker = Broker::start(config)?;
    let address = broker.addresses[0];
    println!("Corelane serves the Kafka protocol on {address}, data in {}", data.join(", "));
    println!("  produce:  echo hello | kcat -b {address} -P -t demo");
    println!("  consume:  kcat -b {address} -C -t demo -o beginning -e");
    if let Some(admin) = broker.admin {
        println!("  look:     curl http://{admin}/metrics        stop: Ctrl-C");
    }
    if !loopback_only {
        tracing::warn!(
            "listening beyond this machine without authentication: whoever reaches the port may read and write"
        );
    }
    let signal = signals.wait().map_err(|error| format!("signals can't be awaited: {error}"))?;
    tracing::info!(%signal, "stopping: answering what is in flight");
    broker.stop()?;
    tracing::info!("stopped clean");
    Ok(())
}
