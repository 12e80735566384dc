//! A network of its own for a client, joined to this machine's by a cable that can be pulled: what goes lost then is told
//! to nobody, as where a phone leaves its cell.

use std::process::{Command, Stdio, id};

use anyhow::ensure;

/// A network namespace and a pair of virtual interfaces; gone when it is dropped.
pub struct Link {
    name: String,
    inner: String,
    here: String,
}

impl Link {
    /// Lays the cable; an error where that is not allowed, or there is no program `ip`.
    pub fn new() -> anyhow::Result<Self> {
        // Link-local addresses (RFC 3927), which no route leads away from.
        let net = format!("169.254.{}", 1 + id() % 254);
        let link = Self {
            name: format!("waypost-{}", id()),
            inner: format!("wpi{}", id()),
            here: format!("{net}.1"),
        };
        let (name, inner, outer) = (&*link.name, &*link.inner, format!("wpo{}", id()));
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", inner, "netns", name])?;
        ip(&["address", "add", &format!("{net}.1/24"), "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        ip(&["-netns", name, "address", "add", &format!("{net}.2/24"), "dev", inner])?;
        link.mend()?;
        Ok(link)
    }

    /// The address of this machine, as the other end sees it.
    pub fn here(&self) -> &str {
        &self.here
    }

    /// Pulls the cable: what is on its way is lost, and neither end hears of it.
    pub fn cut(&self) -> anyhow::Result<()> {
        ip(&["-netns", &self.name, "link", "set", &self.inner, "down"])
    }

    /// Puts the cable in again.
    pub fn mend(&self) -> anyhow::Result<()> {
        ip(&["-netns", &self.name, "link", "set", &self.inner, "up"])
    }

    /// A command that runs at the other end.
    pub fn beyond(&self, command: &Command) -> Command {
        let mut beyond = Command::new("ip");
        beyond.args(["netns", "exec", &self.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                beyond.env(name, value);
            }
        }
        beyond
    }
}

impl Drop for Link {
    /// The interfaces go with the namespace.
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}
