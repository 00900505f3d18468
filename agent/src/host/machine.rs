//! Which machine this is, for telling a copied disk from a host that was started anew.

use peerage_proto::id::DataCenterId;
use ring::hmac;

/// Where systemd keeps the machine's id.
const MACHINE_ID: &str = "/etc/machine-id";

/// The hash covers this purpose and the Data Center's id, so that nobody recognises the same
/// machine elsewhere.
const PURPOSE: &[u8] = b"peerage machine 1";

/// How many bytes of the hash are used.
const BYTES: usize = 16;

/// A hash of this machine's id that says nothing of the id itself: an HMAC keyed by the id, over
/// our purpose and the Data Center, as `sd_id128_get_machine_app_specific` makes its own
/// (machine-id(5)). `None` where the machine has no id; then only the start of its agent tells it
/// from another host.
pub fn machine(datacenter: DataCenterId) -> Option<[u8; BYTES]> {
    let text = std::fs::read_to_string(MACHINE_ID).ok()?;
    of_id(text.trim(), datacenter)
}

fn of_id(machine_id: &str, datacenter: DataCenterId) -> Option<[u8; BYTES]> {
    let id = data_encoding::HEXLOWER_PERMISSIVE.decode(machine_id.as_bytes()).ok()?;
    if id.len() != 16 {
        return None;
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, &id);
    let tag = hmac::sign(&key, &[PURPOSE, &datacenter.0].concat());
    tag.as_ref().first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_known_again_within_one_data_center_only() {
        let (here, there) = (DataCenterId([1; 16]), DataCenterId([2; 16]));
        let id = "0123456789abcdef0123456789abcdef";
        assert!(of_id(id, here).is_some());
        assert_eq!(of_id(id, here), of_id(id, here));
        assert_ne!(of_id(id, here), of_id(id, there));
        assert_ne!(of_id(id, here), of_id("1123456789abcdef0123456789abcdef", here));
    }

    #[test]
    fn a_machine_without_an_id_has_none() {
        for text in ["", "uninitialized", "0123"] {
            assert_eq!(of_id(text, DataCenterId([1; 16])), None, "{text}");
        }
    }
}
