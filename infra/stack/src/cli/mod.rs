//! The command line: one module per command, each with its arguments and its `run`.

mod behaviours;
mod bench;
mod config;
mod demo;
mod doctor;
mod duration;
mod file;
mod holes;
mod import;
mod matches;
mod memory;
mod output;
mod progress;
mod records;
mod rules;
mod send;
mod settings;
mod shown;
mod simulate;
mod status;
mod tail;
mod token;
mod topics;
mod up;
mod wait;
mod zones;

use std::process::ExitCode;

/// Location and messaging on Apache Kafka: what devices report and users say arrives where it should, exactly once.
#[derive(Debug, clap::Parser)]
#[command(name = "waypost", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A command; the doc comment of a module's `Args` is its help.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Up(up::Args),
    Demo(demo::Args),
    Import(import::Args),
    Zones(zones::Args),
    Rules(rules::Args),
    Matches(matches::Args),
    Status(status::Args),
    Wait(wait::Args),
    Token(token::Args),
    Send(send::Args),
    Tail(tail::Args),
    Simulate(simulate::Args),
    Topics(topics::Args),
    Holes(holes::Args),
    Records(records::Args),
    Behaviours(behaviours::Args),
    Config(config::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
}

/// Carries out a command; its exit code, or why it could not be carried out (exit code 1).
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(args) => up::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Zones(args) => zones::run(args).await,
        Command::Rules(args) => rules::run(args).await,
        Command::Matches(args) => matches::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Wait(args) => wait::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Send(args) => send::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Topics(args) => topics::run(args).await,
        Command::Holes(args) => holes::run(args).await,
        Command::Records(args) => records::run(args).await,
        Command::Behaviours(args) => behaviours::run(args).await,
        Command::Config(args) => config::run(&args),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Bench(args) => bench::run(args).await,
    }
}
