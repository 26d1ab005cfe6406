//! The bytes of a `sock_diag` exact look-up: `inet_diag_req_v2` out, `inet_diag_msg` or an errno in.
//!
//! Layouts are those of linux/netlink.h and linux/inet_diag.h: host byte order, but for ports and
//! addresses, which travel in network order. Nothing here touches a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::row::{Row, TcpState, Tuple};

/// Length of a request: netlink header and `inet_diag_req_v2`.
pub(super) const REQUEST_LEN: usize = HEADER_LEN + 56;
/// Room for an answer. The kernel sends 88 bytes and a few attributes; an error echoes the request.
pub(super) const ANSWER_MAX: usize = 4096;

const HEADER_LEN: usize = 16;
const ROW_LEN: usize = 72;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// `INET_DIAG_NOCOOKIE`: any socket with the tuple will do.
const NO_COOKIE: u64 = u64::MAX;

/// One exact look-up: the socket whose own address is `tuple.local`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    pub(super) tuple: Tuple,
    /// `SO_COOKIE` of the only socket that may answer; the kernel refuses any other with `ESTALE`.
    pub(super) cookie: Option<u64>,
}

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A socket; perhaps not the one asked for, as a listener answers for its whole port.
    Row(Row),
    /// A positive errno, `ENOENT` for no such socket.
    Errno(i32),
}

/// The answer does not have the shape that the kernel's headers promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed sock_diag answer")]
pub(super) struct Malformed;

/// The bytes that ask `query`; `seq` comes back in the answer.
pub(super) fn encode(query: &Query, seq: u32) -> Vec<u8> {
    let Tuple { local, remote } = query.tuple;
    let v4 = local.is_ipv4() && remote.is_ipv4();
    let mut out = Vec::with_capacity(REQUEST_LEN);
    out.extend((REQUEST_LEN as u32).to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST.to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend(0u32.to_ne_bytes()); // from: the kernel knows us by our socket
    out.extend([if v4 { AF_INET } else { AF_INET6 }, IPPROTO_TCP, 0, 0]);
    out.extend(u32::MAX.to_ne_bytes()); // every state; the answer's is checked by the caller
    out.extend(local.port().to_be_bytes());
    out.extend(remote.port().to_be_bytes());
    out.extend(address_bytes(local, v4));
    out.extend(address_bytes(remote, v4));
    out.extend(0u32.to_ne_bytes()); // any interface
    let cookie = query.cookie.unwrap_or(NO_COOKIE);
    out.extend((cookie as u32).to_ne_bytes());
    out.extend(((cookie >> 32) as u32).to_ne_bytes());
    out
}

/// The answer to the look-up numbered `seq`.
///
/// # Errors
/// [`Malformed`] if the message is cut short, answers something else, or is of no known kind.
pub(super) fn parse(message: &[u8], seq: u32) -> Result<Answer, Malformed> {
    let (header, _) = message.split_first_chunk::<HEADER_LEN>().ok_or(Malformed)?;
    let length = u32_at(header, 0)? as usize;
    if length < HEADER_LEN || u32_at(header, 8)? != seq {
        return Err(Malformed);
    }
    let body = message.get(HEADER_LEN..length).ok_or(Malformed)?;
    match u16::from_ne_bytes(array_at(header, 4)?) {
        NLMSG_ERROR => parse_errno(body),
        SOCK_DIAG_BY_FAMILY => parse_row(body.get(..ROW_LEN).ok_or(Malformed)?).map(Answer::Row),
        _ => Err(Malformed),
    }
}

fn parse_errno(body: &[u8]) -> Result<Answer, Malformed> {
    let code = i32::from_ne_bytes(array_at(body, 0)?).checked_neg().ok_or(Malformed)?;
    // 0 would be an acknowledgement, which was not asked for.
    if code > 0 { Ok(Answer::Errno(code)) } else { Err(Malformed) }
}

fn parse_row(body: &[u8]) -> Result<Row, Malformed> {
    let [family, state] = array_at(body, 0)?;
    let port = |at| array_at(body, at).map(u16::from_be_bytes);
    let local = SocketAddr::new(address_at(body, 8, family)?, port(4)?);
    let remote = SocketAddr::new(address_at(body, 24, family)?, port(6)?);
    Ok(Row {
        tuple: Tuple::new(local, remote),
        state: TcpState(state),
        uid: u32_at(body, 64)?,
        inode: u32_at(body, 68)?,
    })
}

fn address_bytes(addr: SocketAddr, v4: bool) -> [u8; 16] {
    match addr.ip() {
        IpAddr::V4(ip) if v4 => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address_at(body: &[u8], at: usize, family: u8) -> Result<IpAddr, Malformed> {
    match family {
        AF_INET => Ok(Ipv4Addr::from(array_at::<4>(body, at)?).into()),
        AF_INET6 => Ok(Ipv6Addr::from(array_at::<16>(body, at)?).into()),
        _ => Err(Malformed),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(local: &str, remote: &str) -> Tuple {
        Tuple::new(local.parse().unwrap(), remote.parse().unwrap())
    }

    fn answer(seq: u32, kind: u16, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend([0, 0]);
        out.extend(seq.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(body);
        out
    }

    fn row_body(query: &Query, state: u8, uid: u32, inode: u32) -> Vec<u8> {
        let request = encode(query, 1);
        let mut body = vec![request[HEADER_LEN], state, 0, 0];
        body.extend(&request[HEADER_LEN + 8..]);
        body.extend([0; 12]);
        body.extend(uid.to_ne_bytes());
        body.extend(inode.to_ne_bytes());
        body
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn request_bytes_are_those_of_the_kernel_headers() {
        let tuple = tuple("127.0.0.1:258", "127.0.0.2:7523");
        let bytes = encode(&Query { tuple, cookie: Some(0x0102_0304_0506_0708) }, 9);
        let mut want = vec![72, 0, 0, 0, 20, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        want.extend([2, 6, 0, 0, 255, 255, 255, 255, 1, 2, 0x1d, 0x63]);
        want.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_row_comes_back_with_its_tuple_for_both_families() {
        for (local, remote) in [("127.0.0.1:5", "127.9.9.9:6"), ("[::1]:5", "[::1]:6")] {
            let query = Query { tuple: tuple(local, remote), cookie: None };
            let bytes = answer(7, SOCK_DIAG_BY_FAMILY, &row_body(&query, 1, 1000, 42));
            let row = Row { tuple: query.tuple, state: TcpState(1), uid: 1000, inode: 42 };
            assert_eq!(parse(&bytes, 7), Ok(Answer::Row(row)));
            assert_eq!(parse(&bytes, 8), Err(Malformed), "somebody else's answer");
        }
    }

    #[test]
    fn a13_mapped_answer_equals_the_v4_tuple() {
        let mapped = Query { tuple: tuple("127.0.0.1:5", "[::1]:6"), cookie: None };
        let bytes = answer(1, SOCK_DIAG_BY_FAMILY, &row_body(&mapped, 1, 0, 1));
        let Ok(Answer::Row(row)) = parse(&bytes, 1) else { panic!("no row") };
        assert_eq!(row.tuple.local, "127.0.0.1:5".parse().unwrap());
    }

    #[test]
    fn errors_and_cuts_are_told_apart() {
        let enoent = answer(1, NLMSG_ERROR, &(-2i32).to_ne_bytes());
        assert_eq!(parse(&enoent, 1), Ok(Answer::Errno(2)));
        for code in [0, 1, i32::MIN] {
            assert_eq!(parse(&answer(1, NLMSG_ERROR, &code.to_ne_bytes()), 1), Err(Malformed));
        }
        let query = Query { tuple: tuple("127.0.0.1:5", "127.0.0.1:6"), cookie: None };
        let whole = answer(1, SOCK_DIAG_BY_FAMILY, &row_body(&query, 1, 0, 1));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], 1), Err(Malformed), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), seq: u32) {
            let _ = parse(&bytes, seq);
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u16..24) {
            let _ = parse(&answer(3, kind, &body), 3);
        }
    }
}
