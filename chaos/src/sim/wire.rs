//! The wire between replicas: in order within a session, slow, silent for a while, or gone.

use std::time::Duration;

use super::session::Message;
use super::world::{Happening, World};

/// How often each end says that it lives: `beat` of `src/replica/follow.rs`.
pub const BEAT: Duration = Duration::from_millis(200);
/// `idle_timeout` of the transport.
const IDLE: Duration = Duration::from_secs(3);
/// What does not get through is sent again after this.
const RESEND: Duration = Duration::from_millis(150);

impl World {
    /// Hands a message to the wire; `up` is to the leader.
    pub fn send(&mut self, id: u64, up: bool, message: Message) {
        let bad = u64::from(self.weather.lost + self.weather.late);
        let mut delay = self.rng.ms(0, 2 + bad / 20) + Duration::from_micros(60);
        if self.rng.chance(self.weather.lost) {
            delay += self.rng.ms(100, 600);
        }
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let pipe = if up { &mut session.up } else { &mut session.down };
        pipe.last = pipe.last.max(now + delay);
        pipe.under_way.push_back(message);
        let at = pipe.last;
        self.at(at, Happening::Deliver { session: id, up });
    }

    /// The oldest message of a direction arrives, unless nothing passes there now.
    pub fn deliver(&mut self, id: u64, up: bool) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (follower, leader) = (session.follower.0, session.leader);
        let (from, to) = if up { (follower, leader) } else { (leader, follower) };
        if self.cuts[from][to] > now {
            let again = (now + RESEND).max(self.cuts[from][to].min(now + 4 * RESEND));
            return self.at(again, Happening::Deliver { session: id, up });
        }
        let pipe = if up { &mut session.up } else { &mut session.down };
        let Some(message) = pipe.under_way.pop_front() else { return };
        match up {
            true => self.served(id, message),
            false => self.taken(id, message),
        }
    }

    /// An end says that it lives, and gives up if the other was silent for too long.
    pub fn beat(&mut self, id: u64, up: bool) {
        let now = self.now;
        let Some(session) = self.sessions.get(&id) else { return };
        let heard = match up {
            true => session.taker.as_ref().map(|taker| taker.heard),
            false => session.server.as_ref().map(|server| server.heard),
        };
        let Some(heard) = heard else { return };
        if now > heard + IDLE {
            return match up {
                true => self.end_taker(id, "the leader is silent"),
                false => self.end_server(id, false),
            };
        }
        let flows = match up {
            true => session.taker.as_ref().is_some_and(|taker| taker.expected.is_some()),
            false => session.server.as_ref().is_some_and(|server| server.started),
        };
        match (up, flows) {
            (true, true) => {
                let node = session.follower.0;
                self.acknowledge(node);
            }
            (false, true) => self.say_beat(id),
            _ => self.send(id, up, Message::Ping),
        }
        if self.sessions.contains_key(&id) {
            self.later(BEAT, Happening::Beat { session: id, up });
        }
    }

    /// A session that nobody has an end of is gone, once its last words have arrived.
    pub fn forget(&mut self, id: u64) {
        if let Some(session) = self.sessions.get(&id)
            && session.taker.is_none()
            && session.server.is_none()
            && session.up.under_way.is_empty()
            && session.down.under_way.is_empty()
        {
            self.sessions.remove(&id);
        }
    }

    /// The node's process is gone, and with it its ends, without a word.
    pub fn drop_ends(&mut self, node: usize) {
        for session in self.sessions.values_mut() {
            if session.follower.0 == node {
                session.taker = None;
            }
            if session.leader == node {
                session.server = None;
            }
        }
        self.sessions.retain(|_, session| session.taker.is_some() || session.server.is_some());
    }
}
