// Permissions to subscribe, and that nothing reaches other users.

import assert from 'node:assert/strict';

import { mint, users } from './support/server.js';
import { Raw } from './support/stomp.js';
import { suite } from './support/suite.js';

const wire = suite();
const { it, sessions } = wire;

it("the own queue has two names, and MESSAGE carries the subscribed one", async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(bob);
  for (const destination of ['/user/queue/messages', `/user/${bob}/queue/messages`]) {
    const inbox = await session.subscribe(destination);
    const stored = await wire.server.post(alice, conversation, `to ${destination}`);
    const message = await inbox.next();
    assert.equal(message.headers.destination, destination);
    assert.equal(message.headers.subscription, inbox.subscription.id);
    assert.equal(message.headers['message-id'], stored.id);
    assert.match(message.headers['content-type'], /^application\/json/);
    assert.equal(Number(message.headers['content-length']), Buffer.byteLength(message.body));
    assert.equal(message.headers.ack, undefined);
    assert.deepEqual(JSON.parse(message.body), stored);
    await session.unsubscribe(inbox);
  }
});

it("another user's queue cannot be named, in whatever spelling, and nothing leaks", async () => {
  const [alice, bob, eve] = users(3);
  const conversation = await wire.server.conversation(alice, bob);
  const victim = await sessions.of(bob);
  const inbox = await victim.subscribe('/user/queue/messages');
  const spellings = [
    `/user/${bob}/queue/messages`,
    '/user/**',
    '/user/*',
    '/user/*/queue/messages',
    '/user/*/queue/*',
    '/user/queue/*',
    '/user/queue/**',
    `/user%2F${bob}%2Fqueue%2Fmessages`,
    `/user/%3${bob}/queue/messages`,
    '//user/queue/messages',
    `//user/${bob}/queue/messages`,
    `/user/${eve}/../${bob}/queue/messages`,
    `/user/./${bob}/queue/messages`,
    `/user/0${bob}/queue/messages`,
    `/user/+${bob}/queue/messages`,
    `/USER/${bob}/queue/messages`,
    `/User/queue/messages`,
    `/user/${bob} /queue/messages`,
    `/topic/../user/${bob}/queue/messages`,
    `/queue/messages-user${bob}`,
    `/queue/**`,
    `/**`,
    `**`,
    '',
    '/',
    'user/queue/messages',
  ];
  for (const destination of spellings) {
    const spy = await sessions.of(eve);
    const leak = spy.listen(destination);
    await spy.expectError(/./, 1008);
    await wire.server.post(alice, conversation, `while ${destination}`);
    assert.equal((await inbox.json()).content, `while ${destination}`);
    assert.equal(leak.length + spy.unhandled.length, 0, destination);
  }
});

it('a refused SUBSCRIBE names its receipt in the ERROR', async () => {
  const [alice, bob] = users(2);
  const session = await sessions.of(alice);
  session.listen(`/user/${bob}/queue/messages`, { receipt: 'asked' });
  const error = await session.expectError(/./, 1008);
  assert.equal(error.headers['receipt-id'], 'asked');
  assert.ok(!JSON.stringify(error.headers).includes(String(bob)), 'the ERROR reveals a user');
});

it("a conversation's topic is for its participants", async () => {
  const [alice, bob, eve] = users(3);
  const conversation = await wire.server.conversation(alice, bob);
  const spy = await sessions.of(eve);
  spy.listen(`/topic/conversation/${conversation}`);
  await spy.expectError(/./, 1008);
  const unknown = await sessions.of(eve);
  unknown.listen('/topic/conversation/4503599627370497');
  await unknown.expectError(/./, 1008);
});

it('the topic includes the sender, as brokers do', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(alice);
  const topic = await session.subscribe(`/topic/conversation/${conversation}`);
  await session.say(conversation, 'heard by all');
  assert.equal((await topic.json()).content, 'heard by all');
});

it('patterns under /topic match, but only conversations that the subscriber may read', async () => {
  const [alice, bob, carol, eve] = users(4);
  const [shared, foreign] = [await wire.server.conversation(alice, bob), await wire.server.conversation(carol, eve)];
  for (const pattern of ['/topic/**', '/topic/conversation/*']) {
    const session = await sessions.of(bob);
    const inbox = await session.subscribe(pattern);
    await wire.server.post(carol, foreign, 'not for bob');
    const stored = await wire.server.post(alice, shared, `matched by ${pattern}`);
    const message = await inbox.next();
    assert.equal(JSON.parse(message.body).id, stored.id);
    assert.equal(inbox.length, 0);
    await session.close();
  }
});

it('a subscription id may be used again after UNSUBSCRIBE, without a duplicate', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(bob);
  const first = await session.subscribe('/user/queue/messages', { id: 'mine' });
  await wire.server.post(alice, conversation, 'one');
  assert.equal((await first.json()).content, 'one');
  first.subscription.unsubscribe();
  const second = await session.subscribe('/user/queue/messages', { id: 'mine' });
  await wire.server.post(alice, conversation, 'two');
  await wire.server.post(alice, conversation, 'three');
  assert.equal((await second.json()).content, 'two');
  assert.equal((await second.json()).content, 'three');
  assert.equal(first.length + second.length, 0);
});

it('two subscriptions of one session each get their copy', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(bob);
  const [queue, topic] = [await session.subscribe('/user/queue/messages'), await session.subscribe(`/topic/conversation/${conversation}`)];
  const stored = await wire.server.post(alice, conversation, 'twice');
  for (const inbox of [queue, topic]) assert.equal((await inbox.next()).headers['message-id'], stored.id);
});

it('a subscription id that is taken is an ERROR', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice);
  raw.send('SUBSCRIBE\nid:1\ndestination:/user/queue/messages\n\n\0');
  raw.send('SUBSCRIBE\nid:1\ndestination:/user/queue/errors\n\n\0');
  assert.equal((await raw.frames.next()).command, 'ERROR');
  await raw.closes.next();
});

it('a selector is never evaluated', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const session = await sessions.of(bob);
  const inbox = await session.subscribe('/user/queue/messages', { selector: "content = 'nothing' AND T(java.lang.Runtime).x()" });
  await wire.server.post(alice, conversation, 'anyway');
  assert.equal((await inbox.json()).content, 'anyway');
});

it('acknowledgement modes give MESSAGE an ack header, and ACK and NACK are accepted', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  for (const mode of ['client', 'client-individual']) {
    const session = await sessions.of(bob);
    const inbox = await session.subscribe('/user/queue/messages', { ack: mode });
    await wire.server.post(alice, conversation, 'first');
    await wire.server.post(alice, conversation, 'second');
    const [first, second] = await inbox.take(2);
    assert.ok(first.headers.ack);
    assert.notEqual(first.headers.ack, second.headers.ack);
    await session.receiptOf((receipt) => first.ack({ receipt }));
    await session.receiptOf((receipt) => second.nack({ receipt }));
    await session.close();
  }
});

it('the token of the session counts, not a header of SUBSCRIBE', async () => {
  const [alice, bob] = users(2);
  const session = await sessions.of(alice);
  session.listen(`/user/${bob}/queue/messages`, { Authorization: `Bearer ${mint(bob)}`, user: String(bob) });
  await session.expectError(/./, 1008);
});
