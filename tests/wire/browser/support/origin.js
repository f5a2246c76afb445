// A small web server for the pages of an application that is not the server's own: another origin.

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const folder = fileURLToPath(new URL('../guide/', import.meta.url));
const VENDOR = {
  '/vendor/sockjs.js': path.join(path.dirname(require.resolve('sockjs-client/package.json')), 'dist/sockjs.js'),
  '/vendor/stomp.umd.js': path.join(path.dirname(require.resolve('sockjs-client/package.json')), '../@stomp/stompjs/bundles/stomp.umd.js'),
};
const FILES = { '/': 'index.html', '/page.js': 'page.js', '/sockjs-client.js': 'sockjs-client.js', '/stompjs.js': 'stompjs.js', '/client.js': 'client.js' };

/** The guide's code has no exports; the page needs its declarations. */
const EXPORTS = '\nexport { stompClient, sendMessage, sendViaWebSocket };\n';

/** Starts it; `{origin, close}`. */
export async function startOrigin() {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://origin');
    const file = VENDOR[pathname] ?? (FILES[pathname] && path.join(folder, FILES[pathname]));
    if (!file) return response.writeHead(pathname === '/favicon.ico' ? 204 : 404).end();
    let text = await readFile(file, 'utf8');
    if (pathname === '/') text = text.replaceAll('ORIGIN', origin);
    if (pathname === '/client.js') text += EXPORTS;
    const type = file.endsWith('.html') ? 'text/html' : 'text/javascript';
    // Scripts of a module graph and the library in SockJS's iframe are fetched by other origins.
    response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8`, 'Access-Control-Allow-Origin': '*' }).end(text);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const origin = `http://127.0.0.1:${server.address().port}`;
  return { origin, close: () => server.close() };
}
