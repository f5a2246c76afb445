// The guide's first scenario: valid, invalid and no token; and the beginning and end of a session.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Versions } from '@stomp/stompjs';
import WebSocket from 'ws';

import { mint, users } from './support/server.js';
import { Raw, within } from './support/stomp.js';
import { suite } from './support/suite.js';

const wire = suite();
const { it, sessions } = wire;

/** The status of a refused upgrade. */
async function refusal(url, options) {
  const socket = new WebSocket(url, ['v12.stomp'], options);
  socket.on('error', () => {});
  const [, response] = await within(once(socket, 'unexpected-response'), 'a refused upgrade');
  response.resume();
  return response;
}

it('a valid token in the query connects', async () => {
  const [alice] = users(1);
  const session = await sessions.of(alice);
  const { headers } = session.connected;
  assert.equal(headers.version, '1.2');
  assert.equal(headers['user-name'], String(alice));
  assert.equal(headers['heart-beat'], '10000,10000');
  assert.match(headers.session, /^[0-9a-f]{32}$/);
  assert.match(headers.server, /^tidings/);
});

it('a valid token in the CONNECT header connects, whatever the case of Bearer', async () => {
  for (const word of ['Bearer', 'bearer', 'BEARER']) {
    const [alice] = users(1);
    const session = sessions.prepare({ via: 'none', headers: { Authorization: `${word} ${mint(alice)}` } });
    const connected = await session.connect();
    assert.equal(connected.headers['user-name'], String(alice));
  }
});

it('each session has an id of its own', async () => {
  const [alice] = users(1);
  const ids = await Promise.all([1, 2, 3].map(async () => (await sessions.of(alice)).connected.headers.session));
  assert.equal(new Set(ids).size, 3);
});

it('an invalid token in the query is answered 401 before the upgrade', async () => {
  const [alice] = users(1);
  for (const token of ['garbage', mint(alice, { secret: 'another-secret-of-another-server-32' }), mint(alice, { ttl: -5 })]) {
    const response = await refusal(wire.server.endpoint(`token=${token}`));
    assert.equal(response.statusCode, 401);
  }
});

it('an invalid token in CONNECT is an ERROR, and close 1008 within a second', async () => {
  const [alice] = users(1);
  const bad = [mint(alice, { ttl: -5 }), mint(alice, { secret: 'another-secret-of-another-server-32' }), 'garbage'];
  for (const token of bad) {
    const session = sessions.prepare({ token, via: 'header' }).attempt();
    await session.expectError(/./, 1008);
  }
});

it('no token at all is an ERROR, and close 1008 within a second', async () => {
  const raw = await Raw.open(wire.server);
  const asked = performance.now();
  raw.send('CONNECT\naccept-version:1.2\nhost:tidings\n\n\0');
  const error = await raw.frames.next();
  assert.equal(error.command, 'ERROR');
  assert.ok(error.headers.message);
  assert.equal((await raw.closes.next()).code, 1008);
  assert.ok(performance.now() - asked < 1_000, 'it took longer than a second');
});

it('tokens of two different users in query and CONNECT are refused', async () => {
  const [alice, bob] = users(2);
  const session = sessions.prepare({ token: mint(alice), headers: { Authorization: `Bearer ${mint(bob)}` } }).attempt();
  await session.expectError(/./, 1008);
});

it('two tokens of the same user in query and CONNECT are fine', async () => {
  const [alice] = users(1);
  await sessions.of(alice, { headers: { Authorization: `Bearer ${mint(alice)}` } });
});

it('the token may come in an Authorization header of the handshake', async () => {
  const [alice] = users(1);
  const socket = new WebSocket(wire.server.endpoint(), ['v12.stomp'], { headers: { Authorization: `Bearer ${mint(alice)}` } });
  const received = once(socket, 'message');
  await within(once(socket, 'open'), 'open');
  socket.send('CONNECT\naccept-version:1.2\nhost:tidings\n\n\0');
  const [data] = await within(received, 'CONNECTED');
  assert.match(data.toString(), new RegExp(`^CONNECTED\n(.*\n)*user-name:${alice}\n`));
  socket.terminate();
});

for (const version of ['1.0', '1.1', '1.2']) {
  it(`a client that speaks only ${version} is spoken to in ${version}`, async () => {
    const [alice, bob] = users(2);
    const conversation = await wire.server.conversation(alice, bob);
    const [a, b] = await Promise.all([alice, bob].map((user) => sessions.of(user, { versions: [version] })));
    assert.equal(a.version, version);
    assert.equal(a.client.webSocket.protocol, `v${version.replace('.', '')}.stomp`);
    const inbox = await b.subscribe('/user/queue/messages');
    await a.say(conversation, `in ${version}`);
    assert.equal((await inbox.json()).content, `in ${version}`);
    await a.close();
  });
}

it('the highest common version is chosen', async () => {
  const [alice] = users(1);
  const check = async (versions, expect) => {
    const session = await sessions.of(alice, { versions });
    assert.equal(session.version, expect);
  };
  await check([Versions.V1_0, Versions.V1_1], '1.1');
  await check([Versions.V1_1, Versions.V1_2, '2.0'], '1.2');
});

it('no common version is an ERROR that lists the supported ones', async () => {
  const [alice] = users(1);
  const raw = await Raw.open(wire.server, { token: mint(alice), protocols: [] });
  raw.send('CONNECT\naccept-version:2.0,3.1\nhost:tidings\n\n\0');
  const error = await raw.frames.next();
  assert.equal(error.command, 'ERROR');
  const listed = `${error.headers.version ?? ''} ${error.headers.message} ${error.text}`;
  for (const version of ['1.0', '1.1', '1.2']) assert.ok(listed.includes(version), listed);
  await raw.closes.next();
});

it('one of the offered subprotocols is echoed, none of foreign ones', async () => {
  const [alice] = users(1);
  const check = async (offered, expect) => {
    const raw = await Raw.open(wire.server, { token: mint(alice), protocols: offered });
    assert.equal(raw.socket.protocol, expect);
    raw.close();
  };
  await check(['v12.stomp', 'v11.stomp', 'v10.stomp'], 'v12.stomp');
  await check(['v10.stomp', 'v11.stomp'], 'v11.stomp');
  await check(['v10.stomp'], 'v10.stomp');
  await check([], '');
});

it('the same endpoint answers under /ws/websocket', async () => {
  const [alice] = users(1);
  await sessions.of(alice, { route: '/ws/websocket' });
});

it('a first frame that is not CONNECT is an ERROR and the end', async () => {
  const [alice] = users(1);
  for (const frame of ['SEND\ndestination:/app/send\n\n{}\0', 'SUBSCRIBE\nid:0\ndestination:/user/queue/messages\n\n\0']) {
    const raw = await Raw.open(wire.server, { token: mint(alice) });
    raw.send(frame);
    assert.equal((await raw.frames.next()).command, 'ERROR');
    await raw.closes.next();
  }
});

it('a second CONNECT is an ERROR and the end', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice);
  raw.send('CONNECT\naccept-version:1.2\nhost:tidings\n\n\0');
  assert.equal((await raw.frames.next()).command, 'ERROR');
  await raw.closes.next();
});

it('the command STOMP connects as CONNECT does', async () => {
  const [alice] = users(1);
  const raw = await Raw.open(wire.server, { token: mint(alice) });
  raw.send('STOMP\naccept-version:1.2\nhost:tidings\n\n\0');
  assert.equal((await raw.frames.next()).command, 'CONNECTED');
  raw.close();
});

it('DISCONNECT is answered with its RECEIPT, then close 1000', async () => {
  const [alice] = users(1);
  const raw = await Raw.connect(wire.server, alice);
  raw.send('DISCONNECT\nreceipt:bye\n\n\0');
  const receipt = await raw.frames.next();
  assert.equal(receipt.command, 'RECEIPT');
  assert.equal(receipt.headers['receipt-id'], 'bye');
  assert.equal((await raw.closes.next()).code, 1000);
});

it('headers of CONNECT are not escaped, and CONNECTED is not either', async () => {
  const [alice] = users(1);
  const raw = await Raw.open(wire.server, { token: mint(alice) });
  raw.send('CONNECT\naccept-version:1.2\nhost:a\\b\nx-note:no \\q escape\n\n\0');
  assert.equal((await raw.frames.next()).command, 'CONNECTED');
  raw.close();
});
