// 1. Import libraries
import SockJS from 'sockjs-client';
import { Stomp } from '@stomp/stompjs';

// 2. Connect to WebSocket
const socket = new SockJS('http://localhost:8080/ws?token=' + accessToken);
const stompClient = Stomp.over(socket);

// 3. Connect
stompClient.connect({}, 
    // Success callback
    (frame) => {
        console.log('Connected:', frame);
        
        // 4. Subscribe to receive messages
        stompClient.subscribe('/user/queue/messages', (message) => {
            const msg = JSON.parse(message.body);
            displayMessage(msg);
        });
    },
    // Error callback
    (error) => {
        console.error('Connection error:', error);
        
        // Retry connection
        setTimeout(() => reconnect(), 5000);
    }
);

// 5. Send message (via REST API recommended)
async function sendMessage(conversationId, content) {
    const response = await fetch(`/api/conversations/${conversationId}/messages`, {
        method: 'POST',
        headers: {
            'Authorization': 'Bearer ' + accessToken,
            'Content-Type': 'application/json'
        },
        body: JSON.stringify({ content })
    });
    
    // Message saved to DB and broadcast via WebSocket
    // Recipient receives via WebSocket subscription
}

// Alternative: Send via WebSocket directly
function sendViaWebSocket(conversationId, content) {
    stompClient.send(
        `/app/conversations/${conversationId}/send`,
        {},
        JSON.stringify({ content })
    );
}
