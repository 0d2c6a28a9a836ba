//! A monitor on the host of the replica, where the network between the hosts, or its own, is cut.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::Hosts;
use super::cable::SOURCE;
use super::proxy::Weather;
use crate::host::{COMMAND_MAX, Daemon, SYNC_MAX, describe, output_within};

/// Somebody who answers in this namespace, at these ports, as long as the value lives.
fn answering<const N: usize>(namespace: &str, ports: [u16; N]) -> [TcpListener; N] {
    let namespace = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    let listen = move || {
        // Of this thread alone; its sockets stay there.
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
        ports.map(|port| TcpListener::bind((SOURCE, port)).expect("a port"))
    };
    std::thread::spawn(listen).join().expect("the thread ends")
}

fn watch(hosts: &Hosts, arguments: &[&str]) -> Daemon {
    let mut command = hosts.on_target();
    command.args(["monitor", "web", "--interval", "500ms", "--misses", "4"]).args(arguments);
    let mut daemon = Daemon::spawn(command);
    daemon.wait_ready();
    daemon
}

fn shown(hosts: &Hosts) -> Value {
    let output = output_within(hosts.on_target().args(["monitor", "web", "--status", "--json"]), COMMAND_MAX);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", describe(&output)))
}

#[track_caller]
fn wait_for(hosts: &Hosts, monitor: &Daemon, health: &str) {
    let began = Instant::now();
    while shown(hosts)["health"] != health {
        assert!(began.elapsed() < SYNC_MAX, "never {health}: {}\n{}", shown(hosts), monitor.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn end(mut monitor: Daemon) -> String {
    monitor.signal(libc::SIGTERM);
    let status = monitor.wait(COMMAND_MAX);
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", monitor.said());
    monitor.said()
}

#[test]
fn a_link_that_is_cut_is_no_dead_source_and_a_lost_network_tells_nothing() {
    let mut hosts = Hosts::prepare();
    let proxy = hosts.through_proxy();
    hosts.connect();
    // Something else on the host of the source, and what stands for a gateway.
    let _answers = answering(&hosts.cable.source, [5432, 53]);
    let there = format!("tcp:{SOURCE}:5432");
    let gateway = format!("tcp:{SOURCE}:53");
    let monitor = watch(&hosts, &["--probe", "link", "--probe", &there, "--need", "all", "--self", &gateway]);
    wait_for(&hosts, &monitor, "green");

    // The link alone: its host answers.
    proxy.set(Weather { cut: true, ..Weather::default() });
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        assert_ne!(shown(&hosts)["health"], "red", "{}", monitor.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(shown(&hosts)["probes"][0]["answer"], "silent", "{}", shown(&hosts));
    proxy.set(Weather::default());

    // The cable: neither the source nor the gateway.
    hosts.cable.cut();
    wait_for(&hosts, &monitor, "blind");
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        assert_eq!(shown(&hosts)["health"], "blind", "{}", monitor.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    hosts.cable.mend();
    wait_for(&hosts, &monitor, "green");
    let said = end(monitor);
    assert!(!said.contains("-> red"), "{said}");

    // Who does not look at his own network takes the source for gone.
    let monitor = watch(&hosts, &["--probe", &there]);
    wait_for(&hosts, &monitor, "green");
    hosts.cable.cut();
    wait_for(&hosts, &monitor, "red");
    hosts.cable.mend();
    end(monitor);
    hosts.stop_source();
}
