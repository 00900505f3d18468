//! The one binary: the agent, and the command line that talks to it.

use std::process::ExitCode;

use peerage::cli::config::{ConfigCommand, Setting};
use peerage::cli::{self, AgentArgs, Command, CommandLine, Console, DemoArgs};
use peerage::daemon::again::{self, ON_STDIN};
use peerage::host::config::{self, Config, ConfigError, Environment, Flags};
use peerage::host::log;
use peerage::store::StoreError;
use peerage::{daemon, demo};
use peerage_proto::api::{ApiError, ErrorCode, Exit, text};
use serde_json::Value;

fn main() -> ExitCode {
    let exit = match CommandLine::read(std::env::args_os()) {
        Ok(line) => run(line),
        Err(exit) => exit,
    };
    ExitCode::from(exit as u8)
}

fn run(line: CommandLine) -> Exit {
    let environment = environment();
    let mut console = Console::of_this_process(line.json);
    match line.command {
        None => cli::show_way_in(&mut console),
        Some(Command::Agent(args)) => {
            let flags = Flags { socket: line.socket, ..flags(args) };
            match handed_over(flags).and_then(|flags| agent(&flags, &environment)) {
                Err(error) if log::to_journal() => {
                    let hint = error.hint.map(|hint| format!(": {hint}")).unwrap_or_default();
                    log::last_words(error.message + &hint);
                    error.code.exit()
                }
                outcome => console.end_of(outcome),
            }
        }
        Some(Command::Demo(DemoArgs { nodes, once })) => {
            console.end_of(demo::run(demo::Options { nodes, once }).map_err(failed))
        }
        Some(Command::Config(ConfigCommand::Show { config })) => {
            let flags = Flags { config, socket: line.socket, ..Flags::default() };
            let loaded = Config::load(&flags, &environment).map_err(misconfigured);
            if let Some(warning) = loaded.as_ref().ok().and_then(Config::warning) {
                console.warn(warning);
            }
            cli::config::show(loaded.map(|config| settings(&config)), &mut console)
        }
        Some(Command::Reset(args)) if args.data_dir.is_some() => {
            let folder = args.data_dir.clone().unwrap_or_default();
            match daemon::become_owner(&folder) {
                Ok(()) => cli::reset_stopped(&args, &folder, daemon::reset_identity, &mut console),
                Err(error) => console.end_of(Err(error)),
            }
        }
        Some(command) => {
            let socket = config::client_socket(line.socket, &environment);
            let asking = cli::run(command, &socket, &mut console);
            // A client does one thing at a time: it needs no other thread.
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(asking),
                Err(error) => {
                    drop(asking);
                    console.end_of(Err(failed(error.into())))
                }
            }
        }
    }
}

/// The flags, with the token from stdin where `--join -` asks for that. A token among the arguments
/// is first taken off them: this process starts anew without it.
fn handed_over(mut flags: Flags) -> Result<Flags, ApiError> {
    match flags.join.as_deref() {
        None => Ok(flags),
        Some(ON_STDIN) => {
            let wrong = |error: &dyn std::fmt::Display| {
                let message = format!("--join {ON_STDIN} reads no Join Information: {error}");
                ApiError::new(ErrorCode::BadRequest, message)
                    .hint("give what `peerage invite` printed on stdin, or use --join-file FILE")
            };
            let bytes = again::token_on_stdin().map_err(|error| wrong(&error))?;
            let read = text::decoded(bytes).map_err(|error| wrong(&error))?;
            let token = text::one_word(&read);
            if token.is_empty() {
                return Err(wrong(&"stdin is empty"));
            }
            flags.join = Some(token);
            Ok(flags)
        }
        Some(token) => {
            let error = again::with_token(token);
            let message = format!("cannot hide the Join Information from other users: {error}");
            Err(ApiError::new(ErrorCode::Failed, message).hint(
                "put it into a file that only the agent's user reads, and use --join-file FILE",
            ))
        }
    }
}

fn agent(flags: &Flags, environment: &Environment) -> Result<(), ApiError> {
    let config = Config::load(flags, environment).map_err(misconfigured)?;
    let level = log::begin(&config.log).map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, format!("log = {:?} is wrong: {error}", config.log))
            .hint("such as info, debug, or warn,peerage=debug")
    })?;
    if let Some(warning) = config.warning() {
        tracing::warn!("{warning}");
    }
    let mut in_force = config.clone();
    let (flags, environment) = (flags.clone(), environment.clone());
    let reload = move || {
        let new = Config::load(&flags, &environment).map_err(|error| error.to_string())?;
        level.change(&new.log).map_err(|error| format!("log = {:?} is wrong: {error}", new.log))?;
        let told = in_force.told_of(&new);
        in_force.log = new.log;
        Ok(told)
    };
    daemon::run(config, Box::new(reload)).map_err(failed)
}

/// The environment variables that are text; a variable of peerage always is.
fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn flags(args: AgentArgs) -> Flags {
    let AgentArgs { config, data_dir, listen, advertise, name, join, join_file, replace } = args;
    Flags { config, data_dir, socket: None, listen, advertise, name, join, join_file, replace }
}

fn settings(config: &Config) -> Vec<Setting> {
    let setting = |shown: &config::Shown| Setting {
        key: shown.key,
        value: match (shown.key, shown.value.as_slice()) {
            ("advertise" | "link", addresses) => Value::from(addresses),
            ("replace", [value]) => Value::from(value == "true"),
            (_, [value]) => Value::from(value.as_str()),
            _ => Value::Null,
        },
        source: shown.source.clone(),
    };
    config.shown().iter().map(setting).collect()
}

/// A wrong configuration ends with 2, after which the unit does not try again.
fn misconfigured(error: ConfigError) -> ApiError {
    let code = if error.is_final() { ErrorCode::BadRequest } else { ErrorCode::Failed };
    ApiError::new(code, error.to_string())
        .hint("`peerage config show` tells what is in force and where it comes from")
}

/// The whole chain of causes in one line. An error that no new start can change gets the code
/// `Refused`, so that a supervisor does not start the agent again and again.
fn failed(error: anyhow::Error) -> ApiError {
    let needs_somebody = error.downcast_ref().is_some_and(StoreError::needs_somebody);
    let code = if needs_somebody { ErrorCode::Refused } else { ErrorCode::Failed };
    ApiError::new(code, format!("{error:#}"))
}
