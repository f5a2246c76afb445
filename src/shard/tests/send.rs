//! A SEND and what becomes of it: receipts, refusals, order, transactions, acknowledgements.

use std::time::Duration;

use super::harness::{Net, http, member, send};
use crate::store::Failure;

const ERRORS: &str = "/user/queue/errors";

fn net() -> Net {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 2]);
    net.conversation(10, &[1, 3]);
    net
}

#[test]
fn the_receipt_comes_when_the_message_is_stored() {
    let mut net = net();
    let (sender, receiver) = (net.client(1), net.subscriber(2, &["/user/queue/messages"]));
    net.hold_store();
    net.say(sender, &send(9, "a"), &[]);
    net.check(receiver, &[]);
    net.release_store();
    net.check(sender, &["RECEIPT a"]);
    net.check(receiver, &["MESSAGE messages a"]);
}

#[test]
fn a_refused_send_is_told_to_the_errors_queue_or_ends_the_session() {
    let destinations = [
        ("SEND\ndestination:/app/send\nreceipt:r\n\n{\"conversationId\":11,\"content\":\"x\"}", "not_participant"),
        ("SEND\ndestination:/app/conversations/11/send\nreceipt:r\n\n{\"content\":\"x\"}", "not_participant"),
        ("SEND\ndestination:/app/send\nreceipt:r\n\n{\"content\":\"x\"}", "bad_request"),
        ("SEND\ndestination:/app/send\nreceipt:r\n\nnonsense", "bad_request"),
        ("SEND\ndestination:/app/conversations/9/send\nreceipt:r\n\n{\"content\":\" \"}", "content_empty"),
        ("SEND\ndestination:/app/nothing\nreceipt:r\n\n", "not_found"),
        ("SEND\ndestination:/topic/conversation/9\nreceipt:r\n\n{\"content\":\"x\"}", "forbidden"),
        ("SEND\ndestination:/user/2/queue/messages\nreceipt:r\n\n{\"content\":\"x\"}", "forbidden"),
        ("SEND\ndestination:/topic/announcements\nreceipt:r\n\nx", "forbidden"),
        ("SEND\ndestination:/app/auth/refresh\nreceipt:r\n\n{\"token\":\"x\"}", "unauthorized"),
    ];
    for (frame, code) in destinations {
        let mut net = net();
        let client = net.subscriber(1, &[ERRORS]);
        net.say(client, frame, &[&format!("MESSAGE errors {code}")]);
        let deaf = net.client(1);
        net.stomp(deaf, &[frame]);
        let heard = net.heard(deaf);
        assert!(heard[0].starts_with(&format!("ERROR {code}: ")) && heard[0].ends_with("(r)"), "{heard:?}");
        assert_eq!(heard[1..], ["close 1008", "end"]);
        // Who asked for no receipt is not told, and stays.
        let careless = net.client(1);
        net.stomp(careless, &[&frame.replace("receipt:r\n", "")]);
        net.say(careless, "SEND\ndestination:/app/heartbeat\nreceipt:h\n\n", &["RECEIPT h"]);
    }
}

#[test]
fn the_same_client_message_id_stores_once() {
    let mut net = net();
    let client = net.subscriber(1, &[ERRORS]);
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let keyed = |content: &str| {
        format!("SEND\ndestination:/app/conversations/9/send\nclient-message-id:k\nreceipt:r\n\n{{\"content\":\"{content}\"}}")
    };
    net.say(client, &keyed("a"), &["RECEIPT r"]);
    net.say(client, &keyed("a"), &["RECEIPT r"]);
    net.say(client, &keyed("b"), &["MESSAGE errors client_message_id_reused"]);
    net.check(receiver, &["MESSAGE messages a"]);
}

#[test]
fn the_sender_hears_itself_if_it_asks_and_its_other_sessions_always_do() {
    let mut net = net();
    let queues = ["/user/queue/messages", "/user/queue/acks"];
    let (sender, other) = (net.subscriber(1, &queues), net.subscriber(1, &queues));
    net.stomp(sender, &[&send(9, "a")]);
    let heard = net.heard(sender);
    assert!(heard.len() == 2 && heard[0].contains("\"replay\":false") && heard[1] == "RECEIPT a", "{heard:?}");
    net.check(other, &["MESSAGE messages a"]);
    net.stomp(sender, &[&send(9, "b").replace("receipt:b", "echo:true")]);
    assert_eq!(net.heard(sender)[1..], ["MESSAGE messages b"]);
    net.check(other, &["MESSAGE messages b"]);
}

#[test]
fn prev_chains_the_conversation() {
    let mut net = net();
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let sender = net.client(1);
    net.stomp(sender, &[&send(9, "a"), &send(9, "b")]);
    net.stomp(sender, &[&send(9, "c")]);
    let text = net.raw(receiver);
    let bodies: Vec<&str> = text.split("{\"id\"").skip(1).collect();
    let ids: Vec<&str> = bodies.iter().map(|body| body.split('"').nth(1).unwrap()).collect();
    assert_eq!(member(bodies[0], "prev"), None);
    assert_eq!(member(bodies[1], "prev"), Some(ids[0]));
    assert_eq!(member(bodies[2], "prev"), Some(ids[1]));
}

/// What waits while an append is under way goes with the next one, in order.
#[test]
fn order_is_kept_while_the_store_is_slow() {
    let mut net = net();
    let sender = net.client(1);
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    net.say(sender, &send(9, "a"), &["RECEIPT a"]);
    net.hold_store();
    net.stomp(sender, &[&send(9, "b"), &send(9, "c"), &send(10, "x"), &send(9, "d")]);
    net.release_store();
    let heard = net.heard(sender);
    let of = |wanted: [&str; 3]| heard.iter().filter(|line| wanted.contains(&&line[8..])).cloned().collect::<Vec<_>>();
    assert_eq!(of(["b", "c", "d"]), ["RECEIPT b", "RECEIPT c", "RECEIPT d"]);
    assert!(heard.contains(&"RECEIPT x".to_owned()));
    net.check(receiver, &["a", "b", "c", "d"].map(|text| format!("MESSAGE messages {text}")).each_ref().map(String::as_str));
    let of_nine: Vec<&str> = net.appends.iter().map(String::as_str).filter(|texts| *texts != "x").collect();
    assert_eq!(of_nine, ["a", "b", "c,d"]);
}

#[test]
fn an_unknown_outcome_is_asked_for_again_under_the_same_ids() {
    let mut net = net();
    let sender = net.client(1);
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    net.say(sender, &send(9, "a"), &["RECEIPT a"]);
    net.failing = Some(Failure::Unknown);
    net.say(sender, &send(9, "b"), &[]);
    net.say(sender, &send(9, "c"), &[]);
    net.pass(Duration::from_millis(350));
    net.failing = None;
    net.pass(Duration::from_millis(100));
    net.check(sender, &["RECEIPT b", "RECEIPT c"]);
    net.check(receiver, &["MESSAGE messages a", "MESSAGE messages b", "MESSAGE messages c"]);
    assert_eq!(net.appends, ["a", "b", "b", "b", "b", "b", "c"]);
    let history = net.request(1, "GET /conversations/9/messages", "");
    assert_eq!(history.matches("\"content\"").count(), 3, "{history}");
}

#[test]
fn an_outcome_that_stays_unknown_is_given_up() {
    let mut net = net();
    let sender = net.subscriber(1, &[ERRORS]);
    net.say(sender, &send(9, "a"), &["RECEIPT a"]);
    net.failing = Some(Failure::Unknown);
    net.say(sender, &send(9, "b"), &[]);
    net.pass(Duration::from_secs(6));
    net.check(sender, &["MESSAGE errors store_unavailable"]);
}

#[test]
fn a_store_that_is_down_refuses_everything_behind_in_order_and_recovers() {
    let mut net = net();
    let sender = net.subscriber(1, &[ERRORS]);
    net.say(sender, &send(9, "a"), &["RECEIPT a"]);
    net.hold_store();
    net.stomp(sender, &[&send(9, "b"), &send(9, "c"), &send(9, "d")]);
    net.failing = Some(Failure::Unavailable);
    net.release_store();
    let text = net.raw(sender);
    let receipts: Vec<&str> = text.match_indices("\"receipt\":\"").map(|(at, found)| &text[at + found.len()..][..1]).collect();
    assert_eq!(receipts, ["b", "c", "d"], "{text}");
    assert_eq!(net.request(1, "GET /readyz", ""), "503 store_unavailable");
    net.failing = None;
    net.say(sender, &send(9, "e"), &["RECEIPT e"]);
    assert_eq!(net.request(1, "GET /readyz", ""), "200 {\"status\":\"up\"}");
}

#[test]
fn what_waits_for_the_store_is_bounded() {
    let mut net = Net::with(1, |limits| (limits.conversation_pending, limits.append_batch) = (2, 2));
    net.conversation(9, &[1, 2]);
    let sender = net.subscriber(1, &[ERRORS]);
    net.say(sender, &send(9, "a"), &["RECEIPT a"]);
    net.hold_store();
    net.stomp(sender, &[&send(9, "b"), &send(9, "c"), &send(9, "d"), &send(9, "e")]);
    net.check(sender, &["MESSAGE errors store_busy"]);
    net.release_store();
    net.check(sender, &["RECEIPT b", "RECEIPT c", "RECEIPT d"]);
}

#[test]
fn a_session_with_too_much_under_way_is_not_read() {
    let mut net = Net::with(1, |limits| limits.session_inflight = 2);
    net.conversation(9, &[1, 2]);
    let sender = net.client(1);
    net.hold_store();
    net.stomp(sender, &[&send(9, "a"), &send(9, "b")]);
    assert!(net.is_paused(sender));
    net.stomp(sender, &[&send(9, "c")]);
    net.release_store();
    assert!(!net.is_paused(sender));
    net.check(sender, &["RECEIPT a", "RECEIPT b", "RECEIPT c"]);
}

#[test]
fn content_is_made_harmless() {
    let mut net = net();
    let sender = net.client(1);
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    net.say(sender, &send(9, "<b>a < b & c"), &["RECEIPT <b>a < b & c"]);
    net.check(receiver, &["MESSAGE messages &lt;b>a < b & c"]);
}

#[test]
fn own_headers_are_passed_on_and_reserved_ones_are_not() {
    let mut net = net();
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let frame = "SEND\ndestination:/app/conversations/9/send\nx-color:red\nmessage-id:7\nsubscription:q\nx-color:blue\n\n{\"content\":\"a\"}";
    let sender = net.client(1);
    net.stomp(sender, &[frame]);
    let text = net.raw(receiver);
    assert!(text.contains("\nx-color:red\n") && !text.contains("blue") && !text.contains("subscription:q"), "{text}");
    assert_eq!(text.matches("message-id:").count(), 1);
}

#[test]
fn transactions() {
    let mut net = net();
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let sender = net.subscriber(1, &[ERRORS]);
    let inside = |content: &str| send(9, content).replace("SEND\n", "SEND\ntransaction:t\n");
    net.say(sender, "BEGIN\ntransaction:t\nreceipt:begin\n\n", &["RECEIPT begin"]);
    // Inside, a receipt means that the frame was taken in.
    net.say(sender, &inside("a"), &["RECEIPT a"]);
    net.say(sender, &inside("b"), &["RECEIPT b"]);
    net.check(receiver, &[]);
    net.hold_store();
    net.say(sender, "COMMIT\ntransaction:t\nreceipt:commit\n\n", &[]);
    net.release_store();
    net.check(sender, &["RECEIPT commit"]);
    net.check(receiver, &["MESSAGE messages a", "MESSAGE messages b"]);
    net.stomp(sender, &["BEGIN\ntransaction:t\n\n", &inside("c"), "ABORT\ntransaction:t\nreceipt:abort\n\n"]);
    net.check(sender, &["RECEIPT c", "RECEIPT abort"]);
    net.check(receiver, &[]);
    // Of a COMMIT that failed in part, the receipt is an error.
    let foreign = send(11, "x").replace("SEND\n", "SEND\ntransaction:t\n");
    net.stomp(sender, &["BEGIN\ntransaction:t\n\n", &inside("d"), &foreign, "COMMIT\ntransaction:t\nreceipt:commit\n\n"]);
    net.check(sender, &["RECEIPT d", "RECEIPT x", "MESSAGE errors not_participant"]);
    net.check(receiver, &["MESSAGE messages d"]);
    let empty = ["BEGIN\ntransaction:t\n\n", "COMMIT\ntransaction:t\nreceipt:empty\n\n"];
    net.stomp(sender, &empty);
    net.check(sender, &["RECEIPT empty"]);
    for frame in
        ["COMMIT\ntransaction:u\n\n", "ABORT\ntransaction:u\n\n", &inside("e"), "BEGIN\n\n", "ACK\nid:x\ntransaction:u\n\n"]
    {
        let client = net.client(1);
        net.stomp(client, &[frame]);
        let heard = net.heard(client);
        assert!(heard[0].starts_with("ERROR") && heard[1..] == ["close 1002", "end"], "{frame:?}: {heard:?}");
    }
}

/// Nobody would learn of the frame that is missing if COMMIT had its receipt.
#[test]
fn a_transaction_with_a_refused_frame_fails_whole() {
    let mut net = net();
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let good = send(9, "a").replace("SEND\n", "SEND\ntransaction:t\n");
    let bad = "SEND\ntransaction:t\ndestination:/app/send\n\nnonsense";
    let commit = "COMMIT\ntransaction:t\nreceipt:commit\n\n";
    let listening = net.subscriber(1, &[ERRORS]);
    net.stomp(listening, &["BEGIN\ntransaction:t\n\n", &good, bad]);
    net.check(listening, &["RECEIPT a", "MESSAGE errors bad_request"]);
    net.say(listening, commit, &["MESSAGE errors bad_request"]);
    let deaf = net.client(1);
    net.stomp(deaf, &["BEGIN\ntransaction:t\n\n", &good, bad, commit]);
    let heard = net.heard(deaf);
    assert!(heard[1].starts_with("ERROR bad_request: ") && heard[1].ends_with("(commit)"), "{heard:?}");
    net.check(receiver, &[]);
}

/// Only the form of ACK and NACK is looked at: redelivery is not there yet.
#[test]
fn acknowledgements_have_the_form_of_their_version() {
    for (version, good, bad) in [
        ("1.2", "ACK\nid:x\nreceipt:r\n\n", "ACK\nmessage-id:x\nsubscription:0\n\n"),
        ("1.2", "NACK\nid:x\nreceipt:r\n\n", "NACK\n\n"),
        ("1.1", "ACK\nmessage-id:x\nsubscription:0\nreceipt:r\n\n", "ACK\nid:x\n\n"),
        ("1.0", "ACK\nmessage-id:x\nreceipt:r\n\n", "ACK\nid:x\n\n"),
        ("1.0", "ACK\nmessage-id:x\nreceipt:r\n\n", "NACK\nmessage-id:x\n\n"),
    ] {
        let mut net = Net::new(1);
        let token = net.token(1);
        let client = net.upgrade(0, &format!("?token={token}"));
        net.stomp(client, &[&format!("CONNECT\naccept-version:{version}\n\n")]);
        net.heard(client);
        net.say(client, good, &["RECEIPT r"]);
        net.stomp(client, &[bad]);
        let heard = net.heard(client);
        assert!(heard[0].starts_with("ERROR") && heard[1..] == ["close 1002", "end"], "{bad:?}: {heard:?}");
    }
}

#[test]
fn ack_modes_give_messages_an_id_to_acknowledge() {
    let mut net = net();
    let receiver = net.client(2);
    for (mode, expect) in [("auto", false), ("client", true), ("client-individual", true)] {
        net.stomp(receiver, &[&format!("SUBSCRIBE\nid:0\nack:{mode}\ndestination:/user/queue/messages\n\n")]);
        net.request(1, "POST /conversations/9/messages", r#"{"content":"a"}"#);
        assert_eq!(net.raw(receiver).contains("\nack:"), expect, "{mode}");
        net.stomp(receiver, &["UNSUBSCRIBE\nid:0\n\n"]);
    }
}

#[test]
fn disconnect_waits_for_the_receipts_before_it() {
    let mut net = net();
    let client = net.client(1);
    net.hold_store();
    net.stomp(client, &[&send(9, "a"), "DISCONNECT\nreceipt:d\n\n"]);
    net.check(client, &[]);
    net.release_store();
    net.check(client, &["RECEIPT a", "RECEIPT d", "close 1000", "end"]);
    let client = net.client(1);
    let topic = "SUBSCRIBE\nid:0\ndestination:/topic/conversation/10\nreceipt:s\n\n";
    net.hold_store();
    net.stomp(client, &[topic, "DISCONNECT\nreceipt:d\n\n"]);
    net.check(client, &[]);
    net.release_store();
    net.check(client, &["RECEIPT s", "RECEIPT d", "close 1000", "end"]);
    let client = net.client(1);
    net.say(client, "DISCONNECT\n\n", &["close 1000", "end"]);
    let client = net.client(1);
    net.hold_store();
    net.stomp(client, &[&send(9, "b"), "DISCONNECT\n\n", "BEGIN\ntransaction:t\n\n"]);
    net.check(client, &["ERROR no frame may follow DISCONNECT", "close 1002", "end"]);
    net.release_store();
}

/// The answer to a command of a session that has ended is nobody's; the message is stored all the same.
#[test]
fn a_session_may_end_with_commands_under_way() {
    let mut net = net();
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let sender = net.client(1);
    net.hold_store();
    net.stomp(sender, &[&send(9, "a"), &send(9, "b")]);
    net.lose(sender);
    let next = net.client(1);
    net.release_store();
    net.check(receiver, &["MESSAGE messages a", "MESSAGE messages b"]);
    net.check(next, &[]);
}

#[test]
fn one_path_for_rest_and_stomp() {
    let mut net = net();
    let receiver = net.subscriber(2, &["/user/queue/messages"]);
    let sender = net.subscriber(1, &["/user/queue/messages"]);
    let token = net.token(1);
    let client = net.open(0);
    let authorized = format!("Authorization: Bearer {token}\r\nclient-message-id: k\r\n");
    for expect in ["201 hi", "200 hi"] {
        net.write(client, http("POST /api/conversations/9/messages", &authorized, r#"{"content":"hi"}"#));
        net.check(client, &[expect]);
    }
    net.write(client, http("POST /api/conversations/9/messages", &authorized, r#"{"content":"ho"}"#));
    net.check(client, &["409 client_message_id_reused"]);
    net.check(receiver, &["MESSAGE messages hi"]);
    net.check(sender, &["MESSAGE messages hi"]);
}
