//! UDP and UDP-Lite.

use libc::ECONNREFUSED;

use super::ways::{check, way};
use crate::harness::require_kernel;

#[test]
fn udp_by_every_call_fails_at_once() {
    if !require_kernel() {
        return;
    }
    check(&[
        way("udp-sendto TO", "udp", "sendmsg", ECONNREFUSED),
        way("udp-sendto-mapped TO", "udp", "sendmsg", ECONNREFUSED).v4_only(),
        way("udp-sendmsg TO", "udp", "sendmsg", ECONNREFUSED),
        way("udp-sendmmsg TO", "udp", "sendmsg", ECONNREFUSED),
        way("udp-connect TO", "udp", "connect", ECONNREFUSED),
        way("udp-connect-mapped TO", "udp", "connect", ECONNREFUSED).v4_only(),
        way("udp-reconnect FREE TO", "udp", "connect", ECONNREFUSED),
        way("udp-unconnect FREE TO", "udp", "connect", ECONNREFUSED),
        way("udp-connected-sendto FREE TO", "udp", "sendmsg", ECONNREFUSED),
        way("udp-cork TO FREE", "udp", "sendmsg", ECONNREFUSED),
        way("udplite TO", "udplite", "sendmsg", ECONNREFUSED),
    ]);
}
