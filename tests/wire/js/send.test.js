// Sending a message: over STOMP and REST, durable before the RECEIPT, to every session that should get it.

import assert from 'node:assert/strict';

import { admin, mint, users } from './support/server.js';
import { Raw } from './support/stomp.js';
import { suite } from './support/suite.js';

const wire = suite();
const { it, sessions } = wire;

const UUID_V1 = /^[0-9a-f]{8}-[0-9a-f]{4}-1[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Two users with a conversation, connected and listening. */
async function pair() {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const [a, b] = [await sessions.of(alice), await sessions.of(bob)];
  a.inbox = await a.subscribe('/user/queue/messages');
  a.refusals = await a.subscribe('/user/queue/errors');
  b.inbox = await b.subscribe('/user/queue/messages');
  return { alice, bob, conversation, a, b };
}

it('a REST send reaches the subscriber, with the body of the POST response', async () => {
  const { alice, conversation, b } = await pair();
  const route = `/conversations/${conversation}/messages`;
  for (const prefix of ['', '/api']) {
    const response = await wire.server.rest(mint(alice), 'POST', prefix + route, { content: `over ${prefix}` });
    assert.equal(response.status, 201);
    const stored = response.body;
    assert.match(stored.id, UUID_V1);
    assert.equal(stored.conversationId, conversation);
    assert.equal(stored.senderId, alice);
    assert.ok(Math.abs(Date.parse(stored.createdAt) - Date.now()) < 60_000, stored.createdAt);
    assert.ok(response.headers.get('location').endsWith(`${route}/${stored.id}`), response.headers.get('location'));
    assert.deepEqual(await b.inbox.json(), stored);
    assert.deepEqual(await wire.server.expect(200, mint(alice), 'GET', `${route}/${stored.id}`), stored);
  }
});

it('a STOMP send is in the history when its RECEIPT arrives', async () => {
  const { alice, bob, conversation, a, b } = await pair();
  await a.say(conversation, 'by path');
  await a.sendDurably('/app/send', { conversationId: conversation, content: 'by body' });
  for (const user of [alice, bob]) {
    const history = await wire.server.history(user, conversation);
    assert.deepEqual(history.map((message) => message.content), ['by path', 'by body']);
  }
  const [first, second] = [await b.inbox.json(), await b.inbox.json()];
  assert.equal(second.prev, first.id);
  assert.equal(first.prev, undefined);
});

it('messages of one session arrive in order, and prev chains them', async () => {
  const { conversation, bob, a, b } = await pair();
  const said = Array.from({ length: 200 }, (_, index) => `message ${index}`);
  for (const content of said.slice(0, -1)) a.send(`/app/conversations/${conversation}/send`, { content });
  await a.say(conversation, said.at(-1));
  const heard = (await b.inbox.take(said.length)).map((message) => JSON.parse(message.body));
  assert.deepEqual(heard.map((message) => message.content), said);
  for (let at = 1; at < heard.length; at += 1) assert.equal(heard[at].prev, heard[at - 1].id);
  assert.deepEqual((await wire.server.history(bob, conversation)).map((message) => message.id), heard.slice(-100).map((message) => message.id));
});

it("all sessions of both users receive a message, the sending session only when it asks", async () => {
  const { alice, bob, conversation, a, b } = await pair();
  const [otherA, otherB] = [await sessions.of(alice), await sessions.of(bob)];
  for (const other of [otherA, otherB]) other.inbox = await other.subscribe('/user/queue/messages');
  await a.say(conversation, 'silent');
  await a.say(conversation, 'echoed', { echo: 'true' });
  for (const session of [b, otherA, otherB]) {
    assert.equal((await session.inbox.json()).content, 'silent');
    assert.equal((await session.inbox.json()).content, 'echoed');
  }
  assert.equal((await a.inbox.json()).content, 'echoed');
  assert.equal(a.inbox.length, 0);
});

it('a REST send may name the session to leave out', async () => {
  const { alice, conversation, a } = await pair();
  const other = await sessions.of(alice);
  const inbox = await other.subscribe('/user/queue/messages');
  const route = `/conversations/${conversation}/messages`;
  await wire.server.expect(201, mint(alice), 'POST', route, { content: 'from this tab' }, { 'session-id': a.connected.headers.session });
  await wire.server.post(alice, conversation, 'from nowhere');
  assert.equal((await inbox.json()).content, 'from this tab');
  assert.equal((await inbox.json()).content, 'from nowhere');
  assert.equal((await a.inbox.json()).content, 'from nowhere');
});

it('the same client message id stores nothing new, over STOMP or REST', async () => {
  const { alice, conversation, a, b } = await pair();
  const route = `/conversations/${conversation}/messages`;
  const key = 'the-same-key';
  await a.say(conversation, 'once', { 'client-message-id': key });
  await a.sendDurably('/app/send', { conversationId: conversation, content: 'once', clientMessageId: key });
  const replay = await wire.server.rest(mint(alice), 'POST', route, { content: 'once', clientMessageId: key });
  assert.equal(replay.status, 200);
  const byHeader = await wire.server.rest(mint(alice), 'POST', route, { content: 'once' }, { 'client-message-id': key });
  assert.equal(byHeader.status, 200);
  assert.deepEqual(byHeader.body, replay.body);
  await a.say(conversation, 'after');
  const [first, after] = [await b.inbox.json(), await b.inbox.json()];
  assert.deepEqual(first, replay.body);
  assert.equal(first.clientMessageId, key);
  assert.equal(after.content, 'after');
  assert.equal((await wire.server.history(alice, conversation)).length, 2);
});

it('the same client message id with other content is refused', async () => {
  const { alice, conversation, a } = await pair();
  await a.say(conversation, 'mine', { 'client-message-id': 'k' });
  a.send(`/app/conversations/${conversation}/send`, { content: 'another' }, { 'client-message-id': 'k' });
  assert.equal((await a.refusals.json()).code, 'client_message_id_reused');
  const body = { content: 'another', clientMessageId: 'k' };
  const response = await wire.server.rest(mint(alice), 'POST', `/conversations/${conversation}/messages`, body);
  assert.equal(response.status, 409);
  assert.equal(response.body.code, 'client_message_id_reused');
});

it('a client message id is its sender\'s and its conversation\'s', async () => {
  const { alice, bob, conversation, a, b } = await pair();
  const [carol] = users(1);
  const other = await wire.server.conversation(alice, carol);
  await a.say(conversation, 'alice', { 'client-message-id': 'k' });
  await b.say(conversation, 'bob', { 'client-message-id': 'k' });
  await a.say(other, 'elsewhere', { 'client-message-id': 'k' });
  assert.deepEqual((await wire.server.history(bob, conversation)).map((message) => message.content), ['alice', 'bob']);
  assert.equal((await wire.server.history(carol, other)).length, 1);
});

it('a refused SEND leaves the session open and reports why', async () => {
  const { conversation, a } = await pair();
  const [eve, victim] = users(2);
  const foreign = await wire.server.conversation(eve, victim);
  const to = (id) => `/app/conversations/${id}/send`;
  const refused = async (destination, body, code) => {
    a.send(destination, body);
    const refusal = await a.refusals.json();
    assert.equal(refusal.code, code, `${destination}: ${refusal.message}`);
    assert.ok(refusal.message);
  };
  await refused(to(foreign), { content: 'x' }, 'not_participant');
  await refused(to(4_503_599_627_370_497), { content: 'x' }, 'not_participant');
  await refused(to(conversation), { content: 'x'.repeat(4_001) }, 'content_too_long');
  await refused(to(conversation), { content: '' }, 'content_empty');
  await refused(to(conversation), 'not json', 'bad_request');
  await refused(to(conversation), { text: 'x' }, 'bad_request');
  await refused(to(conversation), { content: 7 }, 'bad_request');
  await refused(to('0'), { content: 'x' }, 'bad_request');
  await refused('/app/send', { content: 'x' }, 'bad_request');
  await refused('/app/nowhere', {}, 'not_found');
  await refused('/nowhere', {}, 'not_found');
  for (const destination of ['/topic/x', `/topic/conversation/${conversation}`, `/user/${victim}/queue/messages`, '/user/queue/messages', '/queue/x']) {
    await refused(destination, { content: 'x' }, 'forbidden');
  }
  await a.say(conversation, 'still here');
});

it('a refusal names the receipt that was asked for, and no RECEIPT is sent', async () => {
  const { conversation, a } = await pair();
  a.send('/app/conversations/4503599627370497/send', { content: 'x' }, { receipt: 'wanted' });
  assert.equal((await a.refusals.json()).receipt, 'wanted');
  await a.say(conversation, 'after');
  assert.equal(a.unhandled.length, 0);
});

it('a refusal without a subscription to errors is an ERROR and the end', async () => {
  const [alice] = users(1);
  const session = await sessions.of(alice);
  session.send('/app/conversations/4503599627370497/send', { content: 'x' }, { receipt: 'wanted' });
  const error = await session.expectError(/./, 1008);
  assert.equal(error.headers['receipt-id'], 'wanted');
});

it('refusals go to the sending session alone', async () => {
  const { alice, conversation, a } = await pair();
  const other = await sessions.of(alice);
  const inbox = await other.subscribe('/user/queue/errors');
  a.send('/app/nowhere', {});
  await a.refusals.json();
  other.send('/app/elsewhere', {}, { receipt: 'own' });
  assert.equal((await inbox.json()).receipt, 'own');
  assert.equal(inbox.length, 0);
  await a.say(conversation, 'fence');
});

it('acknowledgements of a send go to the sending session alone', async () => {
  const { alice, conversation, a } = await pair();
  const other = await sessions.of(alice);
  const [acks, others] = [await a.subscribe('/user/queue/acks'), await other.subscribe('/user/queue/acks')];
  await a.say(conversation, 'acknowledged', { 'client-message-id': 'mine' });
  await other.say(conversation, 'of the other');
  const ack = await acks.json();
  const [stored, second] = await wire.server.history(alice, conversation);
  assert.deepEqual(ack, { id: stored.id, conversationId: conversation, clientMessageId: 'mine', createdAt: stored.createdAt, replay: false });
  assert.equal((await others.json()).id, second.id);
  assert.equal(acks.length + others.length, 0);
});

it('content is stored as text: tags go, everything else stays byte for byte', async () => {
  const { alice, conversation, b } = await pair();
  const untouched = ['a < b & c', '5 > 3', 'naïve 🎉 👩‍👩‍👧 ‮ \u0000?', '"quotes" & \'such\' &amp; &lt;b&gt;', ' spaces \t\n kept ', '\\ backslash', '1<2'];
  for (const content of untouched) {
    const stored = await wire.server.post(alice, conversation, content);
    assert.equal(stored.content, content);
    assert.equal((await b.inbox.json()).content, content);
  }
  for (const content of ['<script>alert(1)</script>hi', 'x<img src=x onerror=alert(1)>', '<!-- c -->y', '<b>bold</b>', '<svg/onload=x>z', 'a</p>b']) {
    const stored = await wire.server.post(alice, conversation, content);
    assert.doesNotMatch(stored.content, /<[a-z/!?]/i, stored.content);
  }
});

it('headers of the client are passed on, reserved ones cannot be forged', async () => {
  const { alice, conversation, a, b } = await pair();
  await a.say(conversation, 'with headers', {
    'x-note': 'colon: newline\n carriage\r backslash\\ ünïcödé 🎉',
    'message-id': 'forged',
    subscription: 'forged',
    'user-name': 'root',
    session: 'forged',
    'receipt-id': 'forged',
    version: '9',
    server: 'forged',
  });
  const message = await b.inbox.next();
  assert.equal(message.headers['x-note'], 'colon: newline\n carriage\r backslash\\ ünïcödé 🎉');
  const [stored] = await wire.server.history(alice, conversation);
  assert.equal(message.headers['message-id'], stored.id);
  assert.equal(message.headers.subscription, b.inbox.subscription.id);
  assert.equal(message.headers.destination, '/user/queue/messages');
  assert.ok(!JSON.stringify(message.headers).includes('forged'), JSON.stringify(message.headers));
  assert.equal(message.headers.receipt, undefined);
  assert.equal(message.headers.Authorization, undefined);
});

it('names of headers may hold escapes too', async () => {
  const { conversation, a, b } = await pair();
  a.client.webSocket.send(`SEND\ndestination:/app/conversations/${conversation}/send\nx\\cy:a\\nb\\cc\\\\d\n\n{"content":"escaped"}\0`);
  const message = await b.inbox.next();
  // stompjs undoes the escapes of values and leaves those of names.
  assert.equal(message.headers['x\\cy'], 'a\nb:c\\d');
});

it('the first of repeated headers counts', async () => {
  const { conversation, a, b } = await pair();
  a.client.webSocket.send(
    `SEND\ndestination:/app/conversations/${conversation}/send\ndestination:/app/nowhere\nx-a:first\nx-a:second\n\n{"content":"first"}\0`,
  );
  const message = await b.inbox.next();
  assert.equal(message.headers['x-a'], 'first');
});

it('a frame in many WebSocket messages and many frames in one both work', async () => {
  const { conversation, a, b } = await pair();
  const frame = (content) => `SEND\ndestination:/app/conversations/${conversation}/send\n\n{"content":"${content}"}\0`;
  for (const piece of frame('in pieces')) a.client.webSocket.send(piece);
  a.client.webSocket.send(`\n\r\n${frame('one')}\n\n${frame('two')}${frame('three').slice(0, 20)}`);
  a.client.webSocket.send(frame('three').slice(20));
  for (const content of ['in pieces', 'one', 'two', 'three']) assert.equal((await b.inbox.json()).content, content);
});

it('the client may split large frames', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(alice, { splitLargeFrames: true, maxWebSocketChunkSize: 100 });
  await session.say(conversation, 'long '.repeat(700));
  assert.equal((await wire.server.history(bob, conversation))[0].content, 'long '.repeat(700));
});

it('binary WebSocket frames carry STOMP as text frames do', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(alice, { forceBinaryWSFrames: true });
  await session.say(conversation, 'sent as binary ✓');
  assert.equal((await wire.server.history(bob, conversation))[0].content, 'sent as binary ✓');
});

it('a transaction is carried out at COMMIT, in order, and its RECEIPT means durable', async () => {
  const { alice, conversation, a, b } = await pair();
  const destination = `/app/conversations/${conversation}/send`;
  const transaction = a.client.begin();
  await a.sendDurably(destination, { content: 'first' }, { transaction: transaction.id });
  a.send(destination, { content: 'second' }, { transaction: transaction.id });
  await a.say(conversation, 'outside');
  assert.deepEqual((await wire.server.history(alice, conversation)).map((message) => message.content), ['outside']);
  await a.receiptOf((receipt) => a.client.webSocket.send(`COMMIT\ntransaction:${transaction.id}\nreceipt:${receipt}\n\n\0`));
  assert.deepEqual((await wire.server.history(alice, conversation)).map((message) => message.content), ['outside', 'first', 'second']);
  assert.deepEqual((await b.inbox.take(3)).map((message) => JSON.parse(message.body).content), ['outside', 'first', 'second']);
});

it('an aborted transaction leaves nothing, nor does one that was open at the end', async () => {
  const { alice, conversation, a } = await pair();
  const destination = `/app/conversations/${conversation}/send`;
  const transaction = a.client.begin();
  a.send(destination, { content: 'never' }, { transaction: transaction.id });
  await a.receiptOf((receipt) => a.client.webSocket.send(`ABORT\ntransaction:${transaction.id}\nreceipt:${receipt}\n\n\0`));
  const open = a.client.begin();
  a.send(destination, { content: 'never either' }, { transaction: open.id });
  await a.close();
  assert.deepEqual(await wire.server.history(alice, conversation), []);
});

it('a transaction that was not begun is an ERROR', async () => {
  const [alice] = users(1);
  for (const frame of ['COMMIT\ntransaction:none\n\n\0', 'ABORT\ntransaction:none\n\n\0', 'SEND\ntransaction:none\ndestination:/app/heartbeat\n\n\0', 'BEGIN\ntransaction:t\n\n\0BEGIN\ntransaction:t\n\n\0', 'BEGIN\n\n\0']) {
    const raw = await Raw.connect(wire.server, alice);
    raw.send(frame);
    assert.equal((await raw.frames.next()).command, 'ERROR', JSON.stringify(frame));
    await raw.closes.next();
  }
});

it('every kind of frame is answered when it asks for a receipt', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice);
  const answered = async (frame) => {
    raw.send(frame);
    const receipt = await raw.frames.next();
    assert.equal(receipt.command, 'RECEIPT', JSON.stringify(frame));
    assert.equal(receipt.headers['receipt-id'], 'r:1', 'the id comes back as it was');
  };
  const receipt = 'receipt:r\\c1';
  // The receipt id holds a colon, so the raw header of the answer is escaped.
  raw.frames.next = ((next) => async () => {
    const frame = await next();
    if (frame.headers['receipt-id']) frame.headers['receipt-id'] = frame.headers['receipt-id'].replace('\\c', ':');
    return frame;
  })(raw.frames.next.bind(raw.frames));
  await answered(`SUBSCRIBE\nid:0\ndestination:/user/queue/messages\n${receipt}\n\n\0`);
  await answered(`SUBSCRIBE\nid:1\ndestination:/topic/news\n${receipt}\n\n\0`);
  await answered(`SUBSCRIBE\nid:2\ndestination:/topic/news/**\n${receipt}\n\n\0`);
  await answered(`UNSUBSCRIBE\nid:0\n${receipt}\n\n\0`);
  await answered(`BEGIN\ntransaction:t\n${receipt}\n\n\0`);
  await answered(`SEND\ntransaction:t\ndestination:/app/heartbeat\n${receipt}\n\n\0`);
  await answered(`COMMIT\ntransaction:t\n${receipt}\n\n\0`);
  await answered(`SEND\ndestination:/app/heartbeat\n${receipt}\n\n\0`);
  await answered(`BEGIN\ntransaction:t\n${receipt}\n\n\0`);
  await answered(`ABORT\ntransaction:t\n${receipt}\n\n\0`);
  await answered(`DISCONNECT\n${receipt}\n\n\0`);
  assert.equal((await raw.closes.next()).code, 1000);
});

it('announcements are posted by admins and received by all', async () => {
  const [alice, bob] = users(2);
  const listener = await sessions.of(alice);
  const inbox = await listener.subscribe('/topic/announcements');
  const poster = sessions.prepare({ token: admin() });
  await poster.connect();
  await poster.sendDurably('/topic/announcements', 'maintenance at noon', { 'content-type': 'text/plain' });
  const message = await inbox.next();
  assert.equal(message.body, 'maintenance at noon');
  assert.equal(message.headers['content-type'], 'text/plain');
  assert.match(message.headers['message-id'], UUID_V1);
  const other = await sessions.of(bob);
  const refusals = await other.subscribe('/user/queue/errors');
  other.send('/topic/announcements', 'not mine to say');
  assert.equal((await refusals.json()).code, 'forbidden');
  await poster.sendDurably('/topic/announcements', 'last');
  assert.equal((await inbox.next()).body, 'last');
});

it('a binary body survives, byte for byte, in a binary frame', async () => {
  const [alice] = users(1);
  const bytes = Uint8Array.from({ length: 512 }, (_, index) => index % 256);
  const listener = await sessions.of(alice);
  const inbox = await listener.subscribe('/topic/announcements');
  const raw = await Raw.connect(wire.server, alice);
  raw.send('SUBSCRIBE\nid:0\ndestination:/topic/announcements\nreceipt:s\n\n\0');
  assert.equal((await raw.frames.next()).command, 'RECEIPT');
  const poster = sessions.prepare({ token: admin() });
  await poster.connect();
  await poster.sendDurably('/topic/announcements', bytes, { 'content-type': 'application/octet-stream' });
  assert.deepEqual((await inbox.next()).binaryBody, bytes);
  const frame = await raw.frames.next();
  assert.equal(frame.binary, true);
  assert.equal(frame.headers['content-length'], '512');
  await poster.sendDurably('/topic/announcements', 'plain UTF-8: é', { 'content-type': 'text/plain' });
  const text = await raw.frames.next();
  assert.equal(text.binary, false);
  assert.equal(text.text, 'plain UTF-8: é');
  raw.close();
});

it('a NUL in a body survives when content-length says so', async () => {
  const [alice] = users(1);
  const listener = await sessions.of(alice);
  const inbox = await listener.subscribe('/topic/announcements');
  const poster = sessions.prepare({ token: admin() });
  await poster.connect();
  poster.client.webSocket.send('SEND\ndestination:/topic/announcements\ncontent-length:3\n\na\0b\0');
  assert.deepEqual([...(await inbox.next()).binaryBody], [97, 0, 98]);
});

it('read marks reach the other participants on their receipts queue', async () => {
  const { alice, bob, conversation, a, b } = await pair();
  const receipts = await a.subscribe('/user/queue/receipts');
  const stored = [];
  for (const content of ['one', 'two', 'three']) stored.push(await wire.server.post(alice, conversation, content));
  await b.sendDurably(`/app/messages/${stored[1].id}/read`, '');
  const mark = await receipts.json();
  assert.equal(mark.conversationId, conversation);
  assert.equal(mark.messageId, stored[1].id);
  assert.equal(mark.userId, bob);
  // An older mark changes nothing and is not broadcast; the next broadcast is the newest mark.
  await b.sendDurably(`/app/messages/${stored[0].id}/read`, '', { 'conversation-id': String(conversation) });
  await wire.server.rest(mint(bob), 'POST', `/messages/${stored[2].id}/read`);
  assert.equal((await receipts.json()).messageId, stored[2].id);
  assert.equal(receipts.length, 0);
  const marks = await wire.server.expect(200, mint(alice), 'GET', `/conversations/${conversation}/read-marks`);
  assert.ok(marks.readMarks.some(({ userId, messageId }) => userId === bob && messageId === stored[2].id));
});

it("a message of a foreign conversation cannot be marked", async () => {
  const { alice, conversation } = await pair();
  const [eve] = users(1);
  const stored = await wire.server.post(alice, conversation, 'private');
  const session = await sessions.of(eve);
  const refusals = await session.subscribe('/user/queue/errors');
  for (const id of [stored.id, 'c232ab00-9414-11ec-b3c8-9f6bdeced846']) {
    session.send(`/app/messages/${id}/read`, '');
    assert.equal((await refusals.json()).code, 'not_participant');
    assert.equal((await wire.server.rest(mint(eve), 'POST', `/messages/${id}/read`)).status, 403);
  }
  session.send('/app/messages/17/read', '');
  assert.equal((await refusals.json()).code, 'bad_request');
});
