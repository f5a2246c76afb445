// The life of a session: reconnects, expiry, logout, heart-beats, the end of the server.

import assert from 'node:assert/strict';

import { FIXED_CODE, mint, remember, users } from './support/server.js';
import { Inbox, Raw, within } from './support/stomp.js';
import { suite } from './support/suite.js';

const wire = suite({ 'limits.heartbeat_ms': 300, 'limits.heartbeat_ms_min': 100 });
const { it, sessions } = wire;

it('a client reconnects by itself, subscribes again, and finds missed messages in the history', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const connects = new Inbox('onConnect');
  const messages = new Inbox('messages');
  const session = sessions.prepare({ token: mint(bob), reconnectDelay: 100 });
  session.client.onConnect = () => {
    session.client.subscribe('/user/queue/messages', (message) => messages.push(JSON.parse(message.body)));
    session.client.watchForReceipt('ready', () => connects.push(true));
    session.client.subscribe('/topic/fence', () => {}, { id: 'fence', receipt: 'ready' });
  };
  session.attempt();
  await connects.next();
  await wire.server.post(alice, conversation, 'before');
  assert.equal((await messages.next()).content, 'before');

  for (const signal of ['SIGKILL', 'SIGTERM']) {
    await wire.server.end(signal);
    await session.closes.next();
    await wire.server.launch();
    const missed = await wire.server.post(alice, conversation, `missed after ${signal}`);
    await connects.next();
    await wire.server.post(alice, conversation, `live after ${signal}`);
    let message = await messages.next();
    // The reconnect may be quicker than the first send.
    if (message.id === missed.id) message = await messages.next();
    assert.equal(message.content, `live after ${signal}`);
    const page = await wire.server.expect(200, mint(bob), 'GET', `/conversations/${conversation}/messages?limit=1&cursor=${message.id}`);
    assert.deepEqual(page.messages, [missed]);
  }
});

it('SIGTERM closes the sessions with 1012 and ends with success', async () => {
  const [alice] = users(1);
  const session = await sessions.of(alice);
  const ended = wire.server.end('SIGTERM');
  assert.equal((await session.closes.next()).code, 1012);
  assert.deepEqual(await ended, { code: 0, signal: null });
  await wire.server.launch();
});

it('a token that expires cuts an idle receiver within a second', async () => {
  const [alice] = users(1);
  const token = mint(alice, { ttl: 2 });
  const expires = JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).exp * 1_000;
  const ends = ['query', 'header'].map(async (via) => {
    const session = sessions.prepare({ token, via });
    await session.connect();
    await session.subscribe('/user/queue/messages');
    await session.expectError(/expire/i, 1008);
    return Date.now();
  });
  for (const at of await Promise.all(ends)) {
    // Half a second on top, for a machine that is busy with other tests.
    assert.ok(at >= expires && at <= expires + 1_500, `${at - expires} ms after expiry`);
  }
});

it('a new token extends a live session', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const short = mint(alice, { ttl: 2 });
  const session = sessions.prepare({ token: short });
  await session.connect();
  const watch = sessions.prepare({ token: short });
  await watch.connect();
  await session.sendDurably('/app/auth/refresh', { token: mint(alice) });
  await watch.expectError(/./, 1008);
  await session.say(conversation, 'still here');
});

it('a new token of another user, or a bad one, is refused', async () => {
  const [alice, bob] = users(2);
  for (const token of [mint(bob), 'garbage', mint(alice, { ttl: -5 })]) {
    const session = await sessions.of(alice);
    const refusals = await session.subscribe('/user/queue/errors');
    session.send('/app/auth/refresh', { token });
    await within(Promise.race([refusals.next(), session.errors.next()]), 'a refusal');
  }
});

it('a login by one-time code connects, and its logout cuts its sockets and no others', async () => {
  const phone = '+4915100000001';
  const [first, second] = [await wire.server.login(phone), await wire.server.login(phone)];
  assert.equal(first.userId, second.userId);
  assert.equal(first.tokenType, 'Bearer');
  assert.ok(first.expiresIn > 0);
  const me = await wire.server.expect(200, first.accessToken, 'GET', '/users/me');
  assert.equal(me.id, first.userId);
  const open = async (login, via) => {
    const session = sessions.prepare({ token: login.accessToken, via });
    await session.connect();
    return session;
  };
  const gone = [await open(first, 'query'), await open(first, 'header')];
  const stays = await open(second, 'query');
  const response = await wire.server.rest(undefined, 'POST', '/auth/logout', { refreshToken: first.refreshToken });
  assert.equal(response.status, 204);
  const at = Date.now();
  for (const session of gone) await session.expectError(/./, 1008);
  assert.ok(Date.now() - at < 1_500, `${Date.now() - at} ms after logout`);
  await stays.sendDurably('/app/heartbeat', '');
  assert.equal((await wire.server.rest(undefined, 'POST', '/auth/refresh', { refreshToken: first.refreshToken })).status, 401);
  const late = sessions.prepare({ token: first.accessToken, via: 'header' }).attempt();
  await late.expectError(/./, 1008);
});

it('a refresh token rotates; used twice, it revokes its family', async () => {
  const login = await wire.server.login('+4915100000002');
  const session = sessions.prepare({ token: login.accessToken });
  await session.connect();
  const refresh = (refreshToken) => wire.server.rest(undefined, 'POST', '/auth/refresh', { refreshToken });
  const next = await refresh(login.refreshToken);
  assert.equal(next.status, 200);
  remember(next.body.refreshToken);
  remember(next.body.accessToken);
  assert.notEqual(next.body.refreshToken, login.refreshToken);
  await wire.server.expect(200, next.body.accessToken, 'GET', '/users/me');
  assert.equal((await refresh(login.refreshToken)).status, 401);
  assert.equal((await refresh(next.body.refreshToken)).status, 401);
  await session.expectError(/./, 1008);
  assert.equal((await refresh('no-such-token')).status, 401);
});

it('wrong codes are refused', async () => {
  const phone = '+4915100000003';
  await wire.server.expect(202, undefined, 'POST', '/auth/otp', { phone });
  const login = (otp) => wire.server.rest(undefined, 'POST', '/auth/login', { phone, otp });
  assert.equal((await login('999999')).status, 401);
  assert.equal((await wire.server.rest(undefined, 'POST', '/auth/login', { phone: '+4915100000099', otp: '123456' })).status, 401);
  const good = await login(FIXED_CODE);
  assert.equal(good.status, 200);
  remember(good.body.accessToken);
  remember(good.body.refreshToken);
});

it('heart-beats flow both ways at the slower of the two intervals', async () => {
  const [alice] = users(1);
  const heard = new Inbox('heart-beat');
  const session = await sessions.of(alice, {
    heartbeatIncoming: 200,
    heartbeatOutgoing: 200,
    onHeartbeatReceived: () => heard.push(true),
  });
  assert.equal(session.connected.headers['heart-beat'], '300,300');
  await heard.take(8);
  assert.ok(session.client.connected, 'beats of the client keep it alive');
});

it('a client that promised heart-beats and sends none is closed within three intervals', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice, 'accept-version:1.2\nhost:t\nheart-beat:300,0\n');
  const began = performance.now();
  const close = await raw.closes.next();
  assert.equal(close.code, 4408);
  const took = performance.now() - began;
  assert.ok(took >= 300 && took <= 1_400, `${took} ms`);
});

it('a client that promised none is left alone, and gets none', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice, 'accept-version:1.2\nhost:t\nheart-beat:0,0\n');
  const dead = await Raw.connect(wire.server, alice, 'accept-version:1.2\nhost:t\nheart-beat:300,0\n');
  await dead.closes.next();
  raw.send('SEND\ndestination:/app/heartbeat\nreceipt:alive\n\n\0');
  assert.equal((await raw.frames.next()).command, 'RECEIPT');
  assert.equal(raw.beats, 0);
  raw.close();
});

it('STOMP 1.0 has no heart-beats', async () => {
  const [alice] = users(1);
  const raw = await Raw.open(wire.server, { token: mint(alice), protocols: ['v10.stomp'] });
  raw.send('CONNECT\n\n\0');
  const connected = await raw.frames.next();
  assert.equal(connected.command, 'CONNECTED');
  assert.equal(connected.headers.version, '1.0');
  raw.close();
});
