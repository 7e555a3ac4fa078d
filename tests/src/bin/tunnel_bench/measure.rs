//! What is measured of one subject, and how.

use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use adit_tests::probe::flood::Flood;
use adit_tests::probe::ping::Ping;
use adit_tests::probe::throughput::Direction;
use adit_tests::probe::{cpu, memory};
use anyhow::{Context, Result, ensure};

use crate::link::{Link, Scenario};
use crate::load::{self, Load};
use crate::subject::Subject;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// One TCP stream from the client.
    TcpUp,
    /// One TCP stream to the client.
    TcpDown,
    /// Four TCP streams each way at once.
    TcpBoth,
    /// Processor time of both programs while one TCP stream goes up.
    CpuUp,
    /// Of small packets at a given rate.
    UdpLoss,
    /// The highest rate of small packets that arrives.
    UdpRate,
    /// Nothing else on the way.
    RttIdle,
    /// The same, out of the sleep that a processor falls into meanwhile.
    RttSlept,
    /// Beside one TCP stream, the middle.
    RttLoadedMedian,
    /// Beside one TCP stream, the worst per cent.
    RttLoadedTail,
    /// From the start of the client's process to the first answer through the tunnel.
    Connect,
    /// Of the gateway's process, when everything else has been measured.
    Memory,
    /// What 1,000 idle sessions add to that.
    SwarmMemory,
    /// One TCP stream from a client beside them, as a part of what it is without them.
    SwarmTcp,
    /// Complete connections, from the first packet to the session, per second of the gateway's CPU time.
    StormRate,
    /// From dialling to addresses while 2,000 clients do so at once, the worst per cent.
    StormConnect,
    /// What 2,000 handshakes at once add to a running session's worst per cent.
    StormTail,
    /// One TCP stream from a client beside another client's UDP flood, as a part of what it is alone.
    FairUp,
    /// The same towards the clients.
    FairDown,
    /// The stream's part of all that arrives meanwhile.
    FairShareUp,
    /// The same towards the clients.
    FairShareDown,
    /// In the TCP client's session meanwhile, the worst per cent.
    FairTailUp,
    /// The same towards the clients.
    FairTailDown,
}

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// One stream, with processor time.
    Tcp,
    /// Both directions.
    Bidir,
    /// Small packets.
    Udp,
    /// Latency.
    Rtt,
    /// The way from nothing to a tunnel.
    Connect,
    /// Memory.
    Rss,
    /// 1,000 idle sessions beside an active one; Adit only.
    Swarm,
    /// 2,000 handshakes at once beside a running session; Adit only.
    Storm,
    /// A UDP flood of one client beside the TCP stream of another; Adit only.
    Fair,
}

/// A running subject on a link of its own.
pub(crate) struct Bed {
    link: Link,
    subject: Box<dyn Subject>,
}

impl Measure {
    /// For people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::TcpUp => "TCP up, 1 stream, Gbit/s",
            Self::TcpDown => "TCP down, 1 stream, Gbit/s",
            Self::TcpBoth => "TCP both ways, 4 streams each, Gbit/s",
            Self::CpuUp => "CPU s/GB up, both ends",
            Self::UdpLoss => "200-byte UDP at 100 kpps, % lost",
            Self::UdpRate => "200-byte UDP without loss, kpps",
            Self::RttIdle => "RTT idle p50, ms",
            Self::RttSlept => "RTT idle p50, a ping every 10 ms, ms",
            Self::RttLoadedMedian => "RTT under TCP up p50, ms",
            Self::RttLoadedTail => "RTT under TCP up p99, ms",
            Self::Connect => "connect, ms",
            Self::Memory => "gateway RSS, MB",
            Self::SwarmMemory => "1,000 idle sessions, MB more",
            Self::SwarmTcp => "TCP up beside 1,000 idle sessions, to alone",
            Self::StormRate => "handshakes per CPU second of the gateway",
            Self::StormConnect => "2,000 handshakes at once, connect p99, ms",
            Self::StormTail => "2,000 handshakes at once, RTT p99, ms more",
            Self::FairUp => "TCP up beside a UDP flood up, to alone",
            Self::FairDown => "TCP down beside a UDP flood down, to alone",
            Self::FairShareUp => "its part of what arrives of both, up",
            Self::FairShareDown => "its part of what arrives of both, down",
            Self::FairTailUp => "RTT p99 in that session, up, ms",
            Self::FairTailDown => "RTT p99 in that session, down, ms",
        }
    }

    /// For programs.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::TcpUp => "tcp_up_gbit_per_second",
            Self::TcpDown => "tcp_down_gbit_per_second",
            Self::TcpBoth => "tcp_both_gbit_per_second",
            Self::CpuUp => "cpu_seconds_per_gigabyte_up",
            Self::UdpLoss => "udp_200_loss_percent_at_100_kpps",
            Self::UdpRate => "udp_200_loss_free_kpps",
            Self::RttIdle => "rtt_idle_p50_ms",
            Self::RttSlept => "rtt_slept_p50_ms",
            Self::RttLoadedMedian => "rtt_loaded_p50_ms",
            Self::RttLoadedTail => "rtt_loaded_p99_ms",
            Self::Connect => "connect_ms",
            Self::Memory => "gateway_rss_megabytes",
            Self::SwarmMemory => "idle_1000_megabytes_more",
            Self::SwarmTcp => "idle_1000_tcp_up_to_alone",
            Self::StormRate => "handshakes_per_cpu_second",
            Self::StormConnect => "storm_2000_connect_p99_ms",
            Self::StormTail => "storm_2000_rtt_p99_ms_more",
            Self::FairUp => "fair_tcp_up_to_alone",
            Self::FairDown => "fair_tcp_down_to_alone",
            Self::FairShareUp => "fair_tcp_up_share",
            Self::FairShareDown => "fair_tcp_down_share",
            Self::FairTailUp => "fair_up_rtt_p99_ms",
            Self::FairTailDown => "fair_down_rtt_p99_ms",
        }
    }

    /// Whether more is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::TcpUp
                | Self::TcpDown
                | Self::TcpBoth
                | Self::UdpRate
                | Self::SwarmTcp
                | Self::StormRate
                | Self::FairUp
                | Self::FairDown
                | Self::FairShareUp
                | Self::FairShareDown
        )
    }
}

impl Group {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Bidir,
        Self::Udp,
        Self::Rtt,
        Self::Connect,
        Self::Rss,
        Self::Swarm,
        Self::Storm,
        Self::Fair,
    ];

    /// What only Adit is measured for, on beds of its own: the others cannot be asked for a thousand clients.
    pub(crate) const OF_ADIT: [Self; 3] = [Self::Swarm, Self::Storm, Self::Fair];

    /// What the memory is to be seen after.
    pub(crate) const BEFORE_MEMORY: &[Self] = &[Self::Tcp, Self::Bidir, Self::Udp, Self::Rtt];

    /// Whether it is worth measuring in each scenario.
    pub(crate) fn depends_on_link(self) -> bool {
        matches!(self, Self::Tcp | Self::Bidir)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Bidir => "bidir",
            Self::Udp => "udp",
            Self::Rtt => "rtt",
            Self::Connect => "connect",
            Self::Rss => "rss",
            Self::Swarm => "swarm",
            Self::Storm => "storm",
            Self::Fair => "fair",
        })
    }
}

impl Bed {
    /// Lays a link, starts both ends, and waits until the way is whole and quiet.
    pub(crate) fn start(scenario: Scenario, mut subject: Box<dyn Subject>) -> Result<Self> {
        let link = Link::new(scenario)?;
        subject.start_gateway(&link)?;
        subject.start_client(&link)?;
        let inside = subject.inside();
        Ping::to(inside)
            .every(Duration::from_millis(20))
            .patience(START)
            .first_answer(&link.client)?;
        // Path MTU discovery ends before the first measurement.
        Ping::to(inside)
            .count(50)
            .every(Duration::from_millis(20))
            .run(&link.client)?;
        Ok(Self { link, subject })
    }

    /// What runs on it.
    pub(crate) fn subject(&self) -> &dyn Subject {
        self.subject.as_ref()
    }

    /// Fails with a program's last words if one of them has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        self.subject.alive()
    }

    /// Measures all rows of one group once; rows that make no sense for the subject are missing.
    pub(crate) fn measure(
        &mut self,
        group: Group,
        load: &Load,
        seconds: u64,
    ) -> Result<Vec<(Measure, f64)>> {
        let figures = self.figures(group, load, seconds);
        if figures.is_err() {
            // That a program is gone says more than what the load makes of it.
            self.subject.alive()?;
        }
        figures
    }

    fn figures(&mut self, group: Group, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        match group {
            Group::Tcp => self.tcp(load, seconds),
            Group::Bidir => {
                let arrived = load.tcp(&self.link, self.inside(), Direction::Both, 4, seconds)?;
                Ok(vec![(Measure::TcpBoth, arrived.gbit_per_second)])
            }
            Group::Udp => self.udp(load, seconds),
            Group::Rtt => self.rtt(load, seconds),
            Group::Connect => self.connect(),
            Group::Rss => {
                let Some((_, gateway)) = self.subject.processes() else {
                    return Ok(Vec::new());
                };
                let bytes = memory::resident(gateway).context("the gateway is gone")?;
                Ok(vec![(Measure::Memory, bytes as f64 / 1e6)])
            }
            Group::Swarm | Group::Storm | Group::Fair => Ok(Vec::new()),
        }
    }

    fn inside(&self) -> IpAddr {
        self.subject.inside()
    }

    fn tcp(&self, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        let to = self.inside();
        let before = self.cpu();
        let up = load.tcp(&self.link, to, Direction::Up, 1, seconds)?;
        let used = self.cpu().saturating_sub(before);
        let down = load.tcp(&self.link, to, Direction::Down, 1, seconds)?;
        let mut values = vec![
            (Measure::TcpUp, up.gbit_per_second),
            (Measure::TcpDown, down.gbit_per_second),
        ];
        if self.subject.processes().is_some() {
            values.push((Measure::CpuUp, used.as_secs_f64() / (up.bytes / 1e9)));
        }
        Ok(values)
    }

    /// What both programs have used so far.
    fn cpu(&self) -> Duration {
        let (client, gateway) = self.subject.processes().unwrap_or_default();
        cpu::used(client) + cpu::used(gateway)
    }

    fn udp(&self, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        let lost = load.udp_loss(&self.link, self.inside(), 100_000, seconds)?;
        Ok(vec![
            (Measure::UdpLoss, lost),
            (Measure::UdpRate, self.loss_free()?),
        ])
    }

    /// iperf3 spends several microseconds on a packet and cannot tell a fast tunnel from a faster one, so
    /// this is our own flood, for all alike.
    ///
    /// The highest of [`rates`] at which at most one packet in a thousand is lost, in kpps; 0 if none.
    fn loss_free(&self) -> Result<f64> {
        let rates = rates();
        // `low` rates from the bottom are known to pass, `high` is known to fail or beyond the end.
        let (mut low, mut high) = (0, rates.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            let rate = rates[middle] * 1000;
            let mut passes = false;
            // Somebody else's burst on a shared machine is not the subject's loss: a second try.
            for _ in 0..2 {
                let flood = Flood {
                    rate,
                    payload: load::SMALL,
                    length: TRIAL,
                };
                let carried = flood.run(&self.link.client, &self.link.gateway, self.inside())?;
                passes |= carried.lost() <= 0.1 && carried.sent_per_second() > 0.97 * rate as f64;
                if passes {
                    break;
                }
            }
            if passes {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1).map_or(0.0, |index| rates[index] as f64))
    }

    fn rtt(&self, load: &Load, seconds: u64) -> Result<Vec<(Measure, f64)>> {
        let (link, to) = (&self.link, self.inside());
        let ping = Ping::to(to);
        // What follows a connect, a search for the path MTU for one, is over then.
        thread::sleep(SETTLE);
        let pings = |every, count| ping.clone().count(count).every(every).run(&link.client);
        let idle = pings(IDLE_PACE, 2000)?;
        let slept = pings(SLEEP, 200)?;
        let loaded = thread::scope(|scope| {
            // Begins before and ends after the pings.
            let load = scope.spawn(|| load.tcp(link, to, Direction::Up, 1, seconds + 2));
            thread::sleep(Duration::from_secs(1));
            let answers = pings(PACE, u16::try_from(seconds * 500).unwrap_or(u16::MAX));
            load.join().expect("a load does not panic")?;
            answers
        })?;
        let [idle, slept, loaded] =
            [idle, slept, loaded].map(|answers| milliseconds(answers.round_trips));
        ensure!(
            [&idle, &slept, &loaded]
                .iter()
                .all(|times| !times.is_empty()),
            "no ping was answered"
        );
        Ok(vec![
            (Measure::RttIdle, quantile(&idle, 0.5)),
            (Measure::RttSlept, quantile(&slept, 0.5)),
            (Measure::RttLoadedMedian, quantile(&loaded, 0.5)),
            (Measure::RttLoadedTail, quantile(&loaded, 0.99)),
        ])
    }

    fn connect(&mut self) -> Result<Vec<(Measure, f64)>> {
        if self.subject.processes().is_none() {
            return Ok(Vec::new());
        }
        self.subject.stop_client()?;
        let begin = Instant::now();
        self.subject.start_client(&self.link)?;
        let answer = Ping::to(self.inside())
            .every(Duration::from_millis(1))
            .patience(START)
            .first_answer(&self.link.client)?;
        let time = answer - begin;
        Ok(vec![(Measure::Connect, time.as_secs_f64() * 1e3)])
    }
}

/// Ascending.
pub(crate) fn milliseconds(times: Vec<Duration>) -> Vec<f64> {
    let mut values: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

/// Thousands of packets a second, in steps of a twentieth: much finer than the difference looked for.
fn rates() -> Vec<u64> {
    std::iter::successors(Some(20), |rate| Some(rate + (rate / 20).max(1)))
        .take_while(|&rate| rate <= 400)
        .collect()
}

/// A second shows what a queue of milliseconds cannot hide.
const TRIAL: Duration = Duration::from_secs(1);

/// Between pings: an idle tunnel, but no sleeping processor. The bare link tells: a round trip takes 10 µs there when one
/// ping follows the other, 13 to 19 with this pause, 30 to 45 every 2 ms, 85 every 10 ms.
const IDLE_PACE: Duration = Duration::from_micros(500);
/// Between pings that find everything asleep.
const SLEEP: Duration = Duration::from_millis(10);
/// Between pings under load.
const PACE: Duration = Duration::from_millis(2);

/// Nothing happens in an idle tunnel by then.
const SETTLE: Duration = Duration::from_secs(3);

/// OpenVPN needs half a second; a peer that takes this long will not come.
const START: Duration = Duration::from_secs(15);
