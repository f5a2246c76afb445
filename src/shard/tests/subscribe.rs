//! Whose destinations may be heard, and from when on.

use super::harness::{Net, send, user_on};

#[test]
fn own_queues_have_two_spellings() {
    let mut net = Net::new(1);
    net.conversation(9, &[1, 42]);
    for destination in ["/user/queue/messages", "/user/42/queue/messages"] {
        let client = net.subscriber(42, &[destination]);
        net.request(1, "POST /conversations/9/messages", r#"{"content":"hi"}"#);
        net.check(client, &["MESSAGE messages hi"]);
        net.lose(client);
    }
}

#[test]
fn what_is_not_ones_own_ends_the_session() {
    let mut net = Net::new(2);
    net.conversation(9, &[1, 2]);
    for (destination, message) in [
        ("/user/42/queue/messages", "destination is not yours"),
        ("/user/*/queue/messages", "destination is not yours"),
        ("/user/**", "destination is not yours"),
        ("/user/7%2F/queue/messages", "malformed destination"),
        ("//user/queue/messages", "unknown destination"),
        ("/user/../user/42/queue/messages", "malformed destination"),
        ("/USER/queue/messages", "unknown destination"),
        ("/queue/messages", "unknown destination"),
        ("/topic/conversation/9", "destination is not yours"),
        ("/topic/conversation/10", "destination is not yours"),
    ] {
        let client = net.client(7);
        let frame = format!("SUBSCRIBE\nid:0\ndestination:{destination}\nreceipt:r\n\n");
        net.say(client, &frame, &[&format!("ERROR {message} (r)"), "close 1008", "end"]);
    }
}

#[test]
fn malformed_subscribes() {
    let mut net = Net::new(1);
    for (frame, message) in [
        ("SUBSCRIBE\nid:0\n\n", "header destination is missing"),
        ("SEND\n\n{}", "header destination is missing"),
        ("SUBSCRIBE\ndestination:/topic/a\n\n", "header id is missing"),
        ("SUBSCRIBE\nid:0\ndestination:/topic/a\nack:often\n\n", "header ack must be auto, client or client-individual"),
        ("UNSUBSCRIBE\n\n", "header id is missing"),
    ] {
        let client = net.client(1);
        net.say(client, frame, &[&format!("ERROR {message}"), "close 1002", "end"]);
    }
    let client = net.subscriber(1, &["/topic/a"]);
    let again = "SUBSCRIBE\nid:a\ndestination:/topic/b\n\n";
    net.say(client, again, &["ERROR a subscription of this id exists", "close 1002", "end"]);
}

#[test]
fn the_receipt_waits_for_the_topics_shard() {
    let mut net = Net::new(2);
    let conversation = user_on(0, 2, 0);
    let user = user_on(1, 2, 0);
    net.conversation(conversation, &[user, user + 1]);
    let client = net.client(user);
    net.hold_mail();
    net.say(client, &format!("SUBSCRIBE\nid:0\ndestination:/topic/conversation/{conversation}\nreceipt:r\n\n"), &[]);
    net.release_mail();
    net.check(client, &["RECEIPT r"]);
    net.hold_mail();
    net.say(client, "SUBSCRIBE\nid:1\ndestination:/topic/**\nreceipt:p\n\n", &[]);
    net.release_mail();
    net.check(client, &["RECEIPT p"]);
    net.request(user, &format!("POST /conversations/{conversation}/messages"), r#"{"content":"hi"}"#);
    net.check(client, &["MESSAGE 0 hi", "MESSAGE 1 hi"]);
}

#[test]
fn patterns_show_only_what_the_user_may_read() {
    for shards in [1, 3] {
        let mut net = Net::new(shards);
        for (conversation, users) in [(9, [1, 2]), (10, [2, 3]), (11, [1, 3])] {
            net.conversation(conversation, &users);
        }
        let client = net.subscriber(1, &["/topic/conversation/*"]);
        for (conversation, sender) in [(9, 2), (10, 2), (11, 3)] {
            net.request(sender, &format!("POST /conversations/{conversation}/messages"), r#"{"content":"hi"}"#);
        }
        net.check(client, &["MESSAGE * hi", "MESSAGE * hi"]);
    }
}

/// Both answers are on their way when the first subscription has gone: only the second counts.
#[test]
fn subscribing_anew_at_once_doubles_nothing() {
    let mut net = Net::new(2);
    let user = user_on(1, 2, 0);
    let conversation = user_on(0, 2, 0);
    net.conversation(conversation, &[user, user + 1]);
    let client = net.client(user);
    let topic = format!("/topic/conversation/{conversation}");
    let subscribe = format!("SUBSCRIBE\nid:0\ndestination:{topic}\nreceipt:r\n\n");
    let unsubscribe = "UNSUBSCRIBE\nid:0\n\n";
    for held in [false, true] {
        if held {
            net.hold_mail();
        }
        net.stomp(client, &[&subscribe, unsubscribe, &subscribe, unsubscribe, &subscribe]);
        net.release_mail();
        let receipts = net.heard(client).len();
        assert!(receipts >= 1);
        net.request(user, &format!("POST /conversations/{conversation}/messages"), r#"{"content":"hi"}"#);
        net.check(client, &["MESSAGE 0 hi"]);
        net.stomp(client, &[unsubscribe]);
        net.request(user, &format!("POST /conversations/{conversation}/messages"), r#"{"content":"hi"}"#);
        net.check(client, &[]);
    }
}

/// Answers to subscriptions of a session that has ended find nobody, and leave nothing behind.
#[test]
fn a_session_may_end_before_its_subscriptions_are_answered() {
    let mut net = Net::new(2);
    let user = user_on(1, 2, 0);
    let (mine, foreign) = (user_on(0, 2, 0), user_on(0, 2, 1_000));
    net.conversation(mine, &[user, user + 1]);
    for conversation in [mine, foreign] {
        let client = net.client(user);
        net.hold_mail();
        net.stomp(client, &[&format!("SUBSCRIBE\nid:0\ndestination:/topic/conversation/{conversation}\nreceipt:r\n\n")]);
        net.stomp(client, &["SUBSCRIBE\nid:1\ndestination:/topic/*\n\n"]);
        net.lose(client);
        net.release_mail();
        net.check(client, &[]);
    }
    let client = net.client(user);
    net.subscribe(client, &format!("/topic/conversation/{mine}"));
    net.say(client, &send(mine, "a"), &["RECEIPT a", &format!("MESSAGE {mine} a")]);
}

#[test]
fn subscriptions_are_bounded() {
    let mut net = Net::with(1, |limits| limits.subscriptions = 2);
    let client = net.subscriber(1, &["/topic/a", "/topic/b"]);
    net.say(client, "SUBSCRIBE\nid:c\ndestination:/topic/c\n\n", &["ERROR more than 2 subscriptions", "close 1008", "end"]);
}

#[test]
fn without_ids_destinations_name_subscriptions() {
    let mut net = Net::new(1);
    let token = net.token(1);
    let client = net.upgrade(0, &format!("?token={token}"));
    net.stomp(client, &["CONNECT\n\n", "SUBSCRIBE\ndestination:/topic/a\nreceipt:r\n\n"]);
    net.stomp(client, &["UNSUBSCRIBE\ndestination:/topic/a\nreceipt:u\n\n"]);
    net.check(client, &["101", "CONNECTED 1.0", "RECEIPT r", "RECEIPT u"]);
}
