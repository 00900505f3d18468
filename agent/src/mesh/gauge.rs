//! Looks into QUIC, and tells whether full packets arrive.
//!
//! QUIC tells only its congestion control how large the packets were that were confirmed. So this
//! module keeps the usual congestion control (CUBIC, RFC 9438) as it is, passes on what QUIC tells
//! it, and notes that on the way. It changes one thing: while only small data is left to send, the
//! window has a lower bound.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

use peerage_proto::bulk::LARGE_BYTES;

use super::door::Open;

/// The lower bound of the window while only small data is left to send. Large packets that were
/// lost count as on their way until a timer ends, which runs longer each time while nothing is
/// confirmed. Without this bound, small data would wait for that timer.
const SMALL_WINDOW: u64 = 32 * 1024;

/// Makes the controllers of connections whose full packets are counted.
#[derive(Debug, Default)]
pub(super) struct Gauged {
    cubic: Arc<CubicConfig>,
    /// Never read: QUIC drops the factory with the connection, and that ends its count.
    _open: Option<Arc<Open>>,
}

impl Gauged {
    /// For one connection that another host begins. It counts as open for as long as QUIC keeps
    /// this.
    pub(super) fn holding(open: Arc<Open>) -> Self {
        Self { _open: Some(open), ..Self::default() }
    }
}

impl ControllerFactory for Gauged {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Cubic::new(self.cubic.clone(), now, current_mtu);
        Box::new(GaugedCubic { cubic, gauge: Arc::default() })
    }
}

/// What is known of the full packets of a path.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    /// When the first full packet was sent after the last one that was confirmed.
    waits_since: Mutex<Option<Instant>>,
    confirmed: AtomicU64,
    /// Whether a packet was lost since then.
    lost: AtomicBool,
    /// Whether large data was taken back, so that only small data is left to send.
    small_only: AtomicBool,
}

impl Gauge {
    /// The gauge of the path that a connection is on.
    pub(super) fn of(connection: &Connection) -> Option<Arc<Self>> {
        let controller = connection.congestion_state().into_any().downcast::<GaugedCubic>();
        controller.ok().map(|controller| controller.gauge)
    }

    /// Since when full packets are on their way and none of them was confirmed.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        *self.lock()
    }

    /// How many full packets were confirmed.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Stops waiting for the full packets that were sent before. Their data was taken back, or they
    /// were part of a handshake, which ends without a confirmation of each packet.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    /// Sets whether only small data is left to send. The window then has a lower bound, so that
    /// small data does not wait for packets that were lost before.
    pub(super) fn send_small_only(&self, small_only: bool) {
        self.small_only.store(small_only, Ordering::Relaxed);
    }

    fn sent(&self, now: Instant, bytes: u64) {
        if bytes >= LARGE_BYTES {
            self.lock().get_or_insert_with(|| {
                self.lost.store(false, Ordering::Relaxed);
                now
            });
        }
    }

    fn lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Some packets were confirmed, and `in_flight` bytes are still on their way. QUIC tells one
    /// size for all packets that it hands to the kernel at once, so several small packets look like
    /// a large one. Once everything that was sent has been confirmed, nothing waits any more.
    fn left(&self, in_flight: u64) {
        if in_flight == 0 && !self.lost.load(Ordering::Relaxed) {
            self.forget();
        }
    }

    fn arrived(&self, bytes: u64) {
        if bytes >= LARGE_BYTES {
            self.confirmed.fetch_add(1, Ordering::Relaxed);
            *self.lock() = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waits_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct GaugedCubic {
    cubic: Cubic,
    gauge: Arc<Gauge>,
}

impl Controller for GaugedCubic {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.gauge.sent(now, bytes);
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.gauge.arrived(bytes);
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.gauge.left(in_flight);
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.gauge.lost();
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        let window = self.cubic.window();
        if self.gauge.small_only.load(Ordering::Relaxed) {
            window.max(SMALL_WINDOW)
        } else {
            window
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone(), gauge: self.gauge.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn full_packets_wait_from_the_first_that_was_sent_until_any_is_confirmed() {
        let (gauge, start) = (Gauge::default(), Instant::now());
        gauge.sent(start, LARGE_BYTES - 1);
        assert_eq!(gauge.waits_since(), None);
        for after in [1, 2] {
            gauge.sent(start + Duration::from_secs(after), LARGE_BYTES);
        }
        gauge.arrived(LARGE_BYTES - 1);
        assert_eq!(gauge.waits_since(), Some(start + Duration::from_secs(1)));
        gauge.arrived(LARGE_BYTES);
        assert_eq!((gauge.waits_since(), gauge.confirmed()), (None, 1));
    }

    /// Two datagrams of 1,000 bytes that left together counted as a full packet that never arrived.
    #[test]
    fn small_packets_that_left_together_do_not_wait_once_all_is_confirmed() {
        let (gauge, start) = (Gauge::default(), Instant::now());
        gauge.sent(start, 2_000);
        gauge.arrived(1_000);
        gauge.left(1_000);
        assert_eq!(gauge.waits_since(), Some(start));
        gauge.arrived(1_000);
        gauge.left(0);
        assert_eq!((gauge.waits_since(), gauge.confirmed()), (None, 0));

        // A packet that was lost is on its way no longer, and has not arrived either.
        gauge.sent(start, 2_000);
        gauge.lost();
        gauge.left(0);
        assert_eq!(gauge.waits_since(), Some(start));
    }
}
