// Conversations over REST: permissions to create, see, change and leave them, and blocks between users.

import assert from 'node:assert/strict';

import { admin, mint, users } from './support/server.js';
import { suite } from './support/suite.js';

const wire = suite();
const { it, sessions } = wire;

const call = (user, ...rest) => wire.server.rest(mint(user), ...rest);
const members = (conversation) => conversation.participants.map((participant) => participant.userId);

it('the 1:1 conversation of a pair is unique, whichever user creates it and however often', async () => {
  const [alice, bob] = users(2);
  const made = await call(alice, 'POST', '/conversations', { participants: [bob] });
  assert.equal(made.status, 201);
  assert.equal(made.body.kind, 'direct');
  assert.deepEqual(members(made.body), [alice, bob]);
  assert.ok(Number.isSafeInteger(made.body.id) && made.body.id > 0);
  for (const [user, other] of [[alice, bob], [bob, alice]]) {
    const again = await call(user, 'POST', '/api/conversations', { kind: 'direct', participants: [other] });
    assert.equal(again.status, 200);
    assert.equal(again.body.id, made.body.id);
  }
  const racing = users(2);
  const answers = await Promise.all(Array.from({ length: 10 }, (_, at) => call(racing[at % 2], 'POST', '/conversations', { participants: [racing[(at + 1) % 2]] })));
  assert.equal(new Set(answers.map((answer) => answer.body.id)).size, 1);
  assert.equal(answers.filter((answer) => answer.status === 201).length, 1);
});

it('nonsense is refused', async () => {
  const [alice, bob] = users(2);
  const check = async (body) => {
    const response = await call(alice, 'POST', '/conversations', body);
    assert.equal(response.status, 400, JSON.stringify(body));
    assert.equal(response.body.code, 'bad_request');
    assert.ok(response.body.message);
  };
  await check({});
  await check([]);
  await check({ participants: 'all' });
  await check({ participants: [] });
  await check({ participants: [alice] });
  await check({ participants: [0] });
  await check({ participants: [-1] });
  await check({ participants: [1.5] });
  await check({ participants: [2 ** 53] });
  await check({ participants: ['bob'] });
  await check({ kind: 'direct', participants: [bob, bob + 1_000_000] });
  await check({ kind: 'secret', participants: [bob] });
});

it('an admin creates a conversation under a chosen id, once', async () => {
  const [alice, bob, carol] = users(3);
  const id = 2_000_000_000_000 + alice;
  const body = { kind: 'group', participants: [alice, bob] };
  assert.equal((await call(alice, 'PUT', `/conversations/${id}`, body)).status, 403);
  const made = await wire.server.rest(admin(), 'PUT', `/conversations/${id}`, body);
  assert.equal(made.status, 201);
  assert.equal(made.body.id, id);
  assert.deepEqual(members(made.body), [alice, bob]);
  assert.equal((await wire.server.rest(admin(), 'PUT', `/conversations/${id}`, body)).status, 200);
  await wire.server.post(alice, id, 'imported');
  assert.equal((await call(carol, 'GET', `/conversations/${id}`)).status, 403);
});

it('the list shows the last message and the unread count', async () => {
  const [alice, bob, carol] = users(3);
  const [one, two] = [await wire.server.conversation(alice, bob), await wire.server.conversation(alice, carol)];
  const sent = [];
  for (const content of ['a', 'b', 'c']) sent.push(await wire.server.post(bob, one, content));
  const list = async () => {
    const { conversations } = await wire.server.expect(200, mint(alice), 'GET', '/conversations');
    return Object.fromEntries(conversations.map((conversation) => [conversation.id, conversation]));
  };
  let seen = await list();
  assert.deepEqual(Object.keys(seen).sort(), [one, two].map(String).sort());
  assert.deepEqual(seen[one].lastMessage, sent[2]);
  assert.equal(seen[one].unreadCount, 3);
  assert.equal(seen[two].unreadCount, 0);
  assert.ok(!seen[two].lastMessage);
  await call(alice, 'POST', `/messages/${sent[1].id}/read`);
  assert.equal((await list())[one].unreadCount, 1);
  await wire.server.post(alice, one, 'my own');
  seen = await list();
  assert.equal(seen[one].unreadCount, 0);
  assert.equal(seen[one].lastMessage.content, 'my own');
});

it('the list is paged', async () => {
  const [alice, ...others] = users(8);
  const made = [];
  for (const other of others) made.push(await wire.server.conversation(alice, other));
  const seen = [];
  for (let query = '?limit=3', pages = 0; query; pages += 1) {
    assert.ok(pages < 5, 'the pages do not end');
    const page = await wire.server.expect(200, mint(alice), 'GET', `/conversations${query}`);
    seen.push(...page.conversations.map((conversation) => conversation.id));
    query = page.nextCursor ? `?limit=3&after=${page.nextCursor}` : undefined;
  }
  assert.deepEqual(seen.sort(), made.sort());
});

it('others see neither the conversation nor whether it exists', async () => {
  const [alice, bob, eve] = users(3);
  const conversation = await wire.server.conversation(alice, bob);
  const answers = [];
  for (const id of [conversation, 4_503_599_627_370_497]) {
    for (const [method, route, body] of [
      ['GET', `/conversations/${id}`],
      ['GET', `/conversations/${id}/messages`],
      ['POST', `/conversations/${id}/messages`, { content: 'x' }],
      ['GET', `/conversations/${id}/messages/c232ab00-9414-11ec-b3c8-9f6bdeced846`],
      ['GET', `/conversations/${id}/read-marks`],
      ['POST', `/conversations/${id}/participants`, { userId: eve }],
      ['DELETE', `/conversations/${id}/participants/${alice}`],
    ]) {
      const response = await call(eve, method, route, body);
      assert.equal(response.status, 403, `${method} ${route}`);
      answers.push(JSON.stringify(response.body));
    }
  }
  assert.equal(new Set(answers).size, 1, 'an unknown conversation must answer like a foreign one');
});

it('a group grows and shrinks, and a user removed while subscribed gets nothing more', async () => {
  const [alice, bob, carol] = users(3);
  const group = await wire.server.expect(201, mint(alice), 'POST', '/conversations', { kind: 'group', participants: [bob], title: 'Friends' });
  assert.equal(group.title, 'Friends');
  const route = `/conversations/${group.id}/participants`;

  assert.equal((await call(bob, 'POST', route, { userId: carol })).status, 403, 'a member is no admin of the group');
  assert.ok((await call(alice, 'POST', route, { userId: carol })).status < 300);
  const session = await sessions.of(carol);
  const witness = await sessions.of(bob);
  const [queue, topic] = [await session.subscribe('/user/queue/messages'), await session.subscribe(`/topic/conversation/${group.id}`)];
  const all = await session.subscribe('/topic/**');
  const heard = await witness.subscribe('/user/queue/messages');
  await wire.server.post(alice, group.id, 'welcome');
  for (const inbox of [queue, topic, all]) assert.equal((await inbox.json()).content, 'welcome');
  assert.equal((await heard.json()).content, 'welcome');

  assert.equal((await call(alice, 'DELETE', `${route}/${carol}`)).status, 204);
  await wire.server.post(alice, group.id, 'without carol');
  assert.equal((await heard.json()).content, 'without carol');
  // Carol's next message comes by the same way, so any leak would arrive before it.
  const other = await wire.server.conversation(alice, carol);
  await wire.server.post(alice, other, 'fence');
  assert.equal((await queue.json()).content, 'fence');
  assert.equal((await all.json()).content, 'fence');
  assert.equal(topic.length, 0);
  assert.equal((await call(carol, 'GET', `/conversations/${group.id}/messages`)).status, 403);
  const again = await sessions.of(carol);
  again.listen(`/topic/conversation/${group.id}`);
  await again.expectError(/./, 1008);
});

it('a participant may leave a group, and no one may leave a 1:1 conversation', async () => {
  const [alice, bob, carol] = users(3);
  const group = await wire.server.conversation(alice, bob, carol);
  assert.equal((await call(bob, 'DELETE', `/conversations/${group}/participants/${bob}`)).status, 204);
  assert.equal((await call(bob, 'GET', `/conversations/${group}`)).status, 403);
  const left = await wire.server.expect(200, mint(alice), 'GET', `/conversations/${group}`);
  assert.deepEqual(members(left), [alice, carol]);
  assert.equal((await call(carol, 'POST', `/conversations/${group}/leave`)).status, 204);
  assert.equal((await call(carol, 'GET', `/conversations/${group}`)).status, 403);
  const direct = await wire.server.conversation(alice, bob);
  const refused = await call(alice, 'DELETE', `/conversations/${direct}/participants/${bob}`);
  assert.ok(refused.status === 403 || refused.status === 409, String(refused.status));
  assert.equal((await call(alice, 'POST', `/conversations/${direct}/participants`, { userId: carol })).status >= 400, true);
});

it('an admin of a group makes others admins', async () => {
  const [alice, bob, carol] = users(3);
  const group = await wire.server.conversation(alice, bob, carol);
  const route = `/conversations/${group}/participants`;
  assert.equal((await call(bob, 'DELETE', `${route}/${carol}`)).status, 403);
  assert.ok((await call(alice, 'PUT', `${route}/${bob}`, { role: 'admin' })).status < 300);
  assert.equal((await call(bob, 'DELETE', `${route}/${carol}`)).status, 204);
  assert.equal((await call(alice, 'PUT', `${route}/${bob}`, { role: 'emperor' })).status, 400);
  const { participants } = await wire.server.expect(200, mint(bob), 'GET', `/conversations/${group}`);
  assert.deepEqual(participants.map(({ userId, role }) => [userId, role]), [[alice, 'admin'], [bob, 'admin']]);
});

it('a block stops both directions over STOMP and REST, until it is lifted', async () => {
  const [alice, bob] = users(2);
  const conversation = await wire.server.conversation(alice, bob);
  const route = `/conversations/${conversation}/messages`;
  assert.equal((await call(bob, 'PUT', `/users/${alice}/block`)).status, 204);
  assert.equal((await call(bob, 'PUT', `/users/${alice}/block`)).status, 204);
  for (const user of [alice, bob]) {
    const response = await call(user, 'POST', route, { content: 'x' });
    assert.equal(response.status, 403);
    assert.equal(response.body.code, 'blocked');
    const session = await sessions.of(user);
    const refusals = await session.subscribe('/user/queue/errors');
    session.send(`/app/conversations/${conversation}/send`, { content: 'x' });
    assert.equal((await refusals.json()).code, 'blocked');
    assert.equal((await call(user, 'GET', route)).status, 200, 'the history stays readable');
  }
  assert.deepEqual((await call(bob, 'GET', '/users/me/blocks')).body, { blocks: [alice] });
  assert.deepEqual((await call(alice, 'GET', '/users/me/blocks')).body, { blocks: [] });
  assert.equal((await call(bob, 'DELETE', `/users/${alice}/block`)).status, 204);
  assert.equal((await call(bob, 'PUT', `/users/${bob}/block`)).status, 400);
  await wire.server.post(alice, conversation, 'again');
  assert.equal((await wire.server.history(bob, conversation)).length, 1);
});

it('all routes but the open ones need a token', async () => {
  for (const [method, route] of [
    ['GET', '/users/me'],
    ['GET', '/conversations'],
    ['POST', '/conversations'],
    ['GET', '/conversations/1'],
    ['GET', '/conversations/1/messages'],
    ['PUT', '/users/1/block'],
    ['GET', '/no/such/route'],
  ]) {
    for (const token of [undefined, 'garbage', mint(1, { ttl: -5 })]) {
      const response = await wire.server.rest(token, method, route);
      assert.equal(response.status, 401, `${method} ${route}`);
      assert.match(response.headers.get('www-authenticate'), /^Bearer/);
      assert.equal(response.body.code, 'unauthorized');
    }
  }
  const [alice] = users(1);
  assert.equal((await call(alice, 'GET', '/no/such/route')).status, 404);
  for (const route of ['/healthz', '/readyz']) assert.equal((await wire.server.rest(undefined, 'GET', route)).status, 200);
});
