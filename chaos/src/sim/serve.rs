//! The leader's side of followers' sessions.
//!
//! Mirrors `sync/src/replicate/session.rs`, `serve_copy.rs` and `table.rs`: acknowledgements count
//! only after the lineages were matched, and only for records that this session sent.

use std::time::Duration;

use mainstay_sync::position::{Epoch, Position, Seq, VolumeId};
use mainstay_sync::replicate::plan::{self, PROTOCOL, Standing, Verdict};

use super::follow::SERVICE;
use super::plan::Cue;
use super::session::{Message, Server};
use super::wire::BEAT;
use super::world::{Happening, World};

/// Records that go out at once.
const BATCH: u64 = 24;
/// A copy is read in so many pieces.
const PIECES: u64 = 4;

impl World {
    /// Something from a follower.
    pub fn served(&mut self, id: u64, message: Message) {
        let now = self.now;
        if let Message::Hello(standing) = message {
            return self.hello(id, &standing);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(server) = &mut session.server else {
            // Nobody is here any more: an endpoint that does not know the link says so.
            return match message {
                Message::Close { .. } => self.forget(id),
                _ => self.gone(id, false),
            };
        };
        server.heard = now;
        match message {
            Message::Ready { after, volume } => self.follower_ready(id, after, volume),
            Message::Ack { epoch, durable, applied, echo } => {
                server.echoed = server.echoed.max(echo);
                self.acked(id, epoch, durable, applied);
            }
            Message::Fetch { since } => self.copy_asked(id, since),
            Message::Close { .. } => self.end_server(id, false),
            _ => {}
        }
    }

    fn gone(&mut self, id: u64, leaves: bool) {
        self.send(id, false, Message::Close { leaves });
    }

    /// `live`: a follower says where it stands, and is told what to do.
    fn hello(&mut self, id: u64, standing: &Standing) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (node, follower) = (session.leader, session.follower.0);
        let at = &self.nodes[node];
        let (Some(leadership), Some(cluster)) = (at.leadership(), at.disk.cluster) else {
            return self.gone(id, false);
        };
        if at.process.is_none() {
            return;
        }
        let epoch = leadership.epoch;
        let leading = plan::Leading {
            protocol: PROTOCOL,
            service: SERVICE.to_owned(),
            cluster,
            volume: at.disk.volume,
            epoch,
            lineage: at.disk.lineage().clone(),
            head: at.disk.head(),
            first: at.disk.first(),
        };
        let verdict = plan::plan(standing, &leading);
        let (life, now) = (at.life, self.now);
        let welcome = Message::Welcome(Box::new(leading.clone()), verdict.clone());
        self.send(id, false, welcome);
        if matches!(verdict, Verdict::Refuse(_) | Verdict::SetAside { .. }) {
            return self.gone(id, false);
        }
        let server = Server {
            life,
            epoch,
            heard: now,
            volume: standing.volume,
            leading,
            verdict,
            started: false,
            sent: Seq(0),
            durable: Seq(0),
            told: Seq(0),
            sending: false,
            snapshot: None,
            since: Seq(0),
            echoed: Default::default(),
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.server = Some(server);
        }
        self.later(BEAT, Happening::Beat { session: id, up: false });
        // The newest session of a node is the one that counts.
        let seats = self.nodes[node].process.as_mut().and_then(|process| process.leading_mut());
        let Some(leading) = seats else { return };
        let earlier: Vec<u64> = leading
            .seats
            .iter()
            .filter(|(of, _)| *of == follower)
            .map(|(_, session)| *session)
            .collect();
        leading.seats.retain(|(of, _)| *of != follower);
        leading.seats.push((follower, id));
        earlier.into_iter().for_each(|earlier| self.end_server(earlier, false));
    }

    /// `stream`: the follower did as it was told (`fits`), and takes records from here on.
    fn follower_ready(&mut self, id: u64, after: Position, volume: VolumeId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(server) = &mut session.server else { return };
        let head = self.nodes[session.leader].disk.head();
        let ours = after.seq <= head.seq
            && server.leading.lineage.epoch_at(after.seq) == Some(after.epoch);
        let asked = match &server.verdict {
            Verdict::Stream { after: seq } | Verdict::Truncate { after: seq } => *seq == after.seq,
            Verdict::Copy { .. } | Verdict::Delta { .. } => true,
            Verdict::SetAside { .. } | Verdict::Refuse(_) => false,
        };
        let held = after.seq.next() >= self.nodes[session.leader].disk.first()
            || server.snapshot.is_some_and(|(from, _)| from <= after.seq);
        if !(ours && asked && held) {
            return self.end_server(id, false);
        }
        server.volume = volume;
        server.started = true;
        server.sent = after.seq;
        server.snapshot = None;
        self.send(id, false, Message::Started);
        self.send_soon(id);
    }

    /// Records go out in a moment.
    fn send_soon(&mut self, id: u64) {
        let Some(server) = self.sessions.get_mut(&id).and_then(|it| it.server.as_mut()) else {
            return;
        };
        if server.started && !std::mem::replace(&mut server.sending, true) {
            // A bad network is also a narrow one.
            let most = 200 + self.weather.delay_ms * 150;
            let pause = Duration::from_micros(self.rng.between(10, most));
            self.later(pause, Happening::Send { session: id });
        }
    }

    /// A record was appended: every session has something to send.
    pub fn stream(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let super::node::Role::Leading(leading) = &process.role else { return };
        let ids: Vec<u64> = leading.seats.iter().map(|(_, id)| *id).collect();
        ids.into_iter().for_each(|id| self.send_soon(id));
    }

    /// `send_records`: durable here or not, a follower need not wait for our disk.
    pub fn send_records(&mut self, id: u64) {
        let batch = self.rng.between(1, BATCH);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(server) = &mut session.server else { return };
        server.sending = false;
        let disk = &self.nodes[session.leader].disk;
        let records = disk.after(server.sent, batch).to_vec();
        let Some(last) = records.last() else { return };
        server.sent = last.head.seq;
        let more = server.sent < disk.head().seq;
        let (told, node) = (server.told, session.leader);
        self.send(id, false, Message::Records(records));
        if self.committed(node) != told {
            self.say_beat(id);
        }
        if more {
            self.send_soon(id);
        }
    }

    fn committed(&self, node: usize) -> Seq {
        self.nodes[node].process.as_ref().map_or(Seq(0), |process| process.tally.committed())
    }

    /// `queue_beat`.
    pub fn say_beat(&mut self, id: u64) {
        let Some(node) = self.sessions.get(&id).map(|session| session.leader) else { return };
        let (committed, at) = (self.committed(node), self.nodes[node].local(self.now));
        let Some(server) = self.sessions.get_mut(&id).and_then(|it| it.server.as_mut()) else {
            return;
        };
        server.told = committed;
        self.send(id, false, Message::Beat { committed, at });
    }

    /// `take_acks`.
    fn acked(&mut self, id: u64, epoch: Epoch, durable: Seq, applied: Seq) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let node = session.leader;
        let Some(server) = &mut session.server else { return };
        let other = epoch != server.epoch && !mutant!("acks-of-any-epoch-count");
        if other || durable > server.sent || applied > server.sent {
            return self.end_server(id, false);
        }
        server.durable = durable;
        let volume = server.volume;
        if let Some(process) = &mut self.nodes[node].process {
            process.tally.peer_durable(volume, epoch, durable);
        }
        self.report_soon(node);
        let start = self.nodes[node].leadership().map_or(Seq(0), |leading| leading.start);
        let applied = self.nodes[node].process.as_ref().map_or(Seq(0), |it| it.applied);
        if applied < durable && durable < start {
            self.cue(Cue::Courted, node);
        }
        self.committed_moved(node);
        self.keep_heirs(node);
    }

    /// `serve_copy::serve` and `serve_delta::serve`: a snapshot begins, held from the checkpoint
    /// on, which a delta makes first.
    fn copy_asked(&mut self, id: u64, since: Option<Seq>) {
        let Some(leader) = self.sessions.get(&id).map(|session| session.leader) else { return };
        let at = match since {
            Some(_) => self.checkpoint_for(leader),
            None => self.nodes[leader].disk.checkpoint,
        };
        let disk = &self.nodes[leader].disk;
        let (position, lineage) = (disk.position_at(at), disk.lineage_at(at));
        let server = self.sessions.get_mut(&id).and_then(|session| session.server.as_mut());
        let Some(server) = server else { return };
        server.since = since.unwrap_or_default();
        server.snapshot = Some((at, PIECES));
        self.send(id, false, Message::Begin { position, lineage });
        let pause = self.rng.ms(1, 80);
        self.later(pause, Happening::ReadPiece { session: id });
    }

    /// Bytes may be of any op up to what is applied when they are read.
    pub fn read_piece(&mut self, id: u64) {
        let Some(leader) = self.sessions.get(&id).map(|session| session.leader) else { return };
        let touched = self.nodes[leader].process.as_ref().map_or(Seq(0), |it| it.touched);
        let applicable = self.may_apply(leader).max(touched);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let disk = &self.nodes[leader].disk;
        let Some(server) = &mut session.server else { return };
        let Some((held, left)) = &mut server.snapshot else { return };
        if *left == 0 {
            // `Snapshot::through`: what is applicable, and no more; `Changes::through`: and no less
            // than what both have, as the follower acknowledged that.
            let shared = if mutant!("gives-up-what-it-shared") { Seq(0) } else { server.since };
            let through = disk.position_at(applicable.max(shared));
            return self.send(id, false, Message::End { through });
        }
        *left -= 1;
        let (turn, since) = (*left, server.since.min(*held).0);
        let places = (1..=disk.objects.len() as u64)
            .filter(|seq| seq % PIECES == turn && *seq > since)
            .filter_map(|seq| Some((Seq(seq), disk.object(Seq(seq))?)))
            .collect();
        self.send(id, false, Message::Piece(places));
        let pause = self.rng.ms(1, 200);
        self.later(pause, Happening::ReadPiece { session: id });
    }

    /// The session is over at this end.
    pub fn end_server(&mut self, id: u64, leaves: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.server.take().is_some() {
            let node = session.leader;
            if let Some(process) = &mut self.nodes[node].process
                && let Some(leading) = process.leading_mut()
            {
                leading.seats.retain(|(_, session)| *session != id);
            }
            self.gone(id, leaves);
        }
        self.forget(id);
    }
}
